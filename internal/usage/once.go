package usage

import (
	"context"
	"log/slog"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Snapshot reads the store.
type Snapshot = func(context.Context) (*core.Snapshot, error)

// Past looks at the store once, and says what is known of its images' past. keep is whether the look is
// written down; where that does not work, it is logged. problem is that what was known before is lost: the past
// is then what can be told without. err is that the store cannot be read.
func (f *File) Past(ctx context.Context, snapshot Snapshot, keep bool) (past map[core.ImageID]core.Past, problem, err error) {
	at := time.Now().Round(0)
	s, err := snapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	note := func(j *Journal) { j.Note(Look{Snapshot: s, At: at, From: at}) }
	if !keep {
		j, problem := f.Read()
		if problem != nil {
			j = &Journal{}
		}
		note(j)
		return j.Past(), problem, nil
	}
	j, lost, unwritten := f.Update(ctx, note)
	if unwritten != nil {
		slog.Warn("the use of images is not written down", "error", unwritten)
	}
	return j.Past(), lost, nil
}
