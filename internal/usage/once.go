package usage

import (
	"context"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Snapshot reads the store.
type Snapshot = func(context.Context) (*core.Snapshot, error)

// Past looks at the store once, and says what is known of its images' past. keep is whether the look is
// written down. problem is what went wrong with the journal: the past is then what can be told without. err
// is that the store cannot be read.
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
	j, problem := f.Update(ctx, note)
	return j.Past(), problem, nil
}
