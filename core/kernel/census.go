package kernel

import (
	"context"
	"slices"
	"time"
)

// catchUpTime is how long the processes are listed again and again, at most.
const catchUpTime = 200 * time.Millisecond

// scanProcesses follows root, cwd and exe of every process. hasty is whether there may be processes
// that it did not see.
func (i *Inspector) scanProcesses(ctx context.Context) (procs []process, hasty bool, err error) {
	pids, err := i.pids()
	if err != nil {
		return nil, false, err
	}
	procs = make([]process, len(pids))
	if err := parallel(ctx, len(pids), here, func(k int) { procs[k] = i.scanProcess(pids[k], 0) }); err != nil {
		return nil, false, err
	}
	fresh, hasty, err := i.catchUp(ctx, procs, func(*process) bool { return false })
	for _, p := range fresh {
		procs = append(procs, *p)
	}
	return procs, hasty, err
}

// catchUp looks at the processes that came while others were looked at. One that forks and ends is
// missed by a single pass, and so is its child. So the processes are listed again until a pass in
// which none ended between being listed and being looked at: then all that lived at the time of the
// list were seen, and what came later came from those. hasty is whether there was no such pass. look
// says whether the process had ended.
func (i *Inspector) catchUp(ctx context.Context, procs []process, look func(*process) (gone bool)) (fresh []*process, hasty bool, err error) {
	seen := make(map[int]bool, len(procs))
	for k := range procs {
		seen[procs[k].pid] = true
	}
	for end := time.Now().Add(catchUpTime); ; {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		pids, err := i.pids()
		if err != nil {
			return nil, false, err
		}
		missed := false
		for _, pid := range slices.Backward(pids) { // the youngest first, before they end
			if seen[pid] {
				continue // a pid is not given out again before all others were
			}
			seen[pid] = true
			p := i.scanProcess(pid, 0)
			if !p.gone {
				fresh = append(fresh, &p)
			}
			if p.gone || look(&p) {
				missed = true
			}
		}
		if !missed {
			return fresh, false, nil
		}
		if time.Now().After(end) {
			return fresh, true, nil
		}
	}
}
