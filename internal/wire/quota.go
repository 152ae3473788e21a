package wire

import (
	"os"
	"sync"
)

// quota shares a resource out among users, so that none takes all of it and there is always some for root
// and for the user that we run as. One user may have many names: those of a user namespace.
type quota struct {
	total int // for all
	each  int // for one user
	kept  int // of total, for the privileged alone

	mu       sync.Mutex
	used     int
	ordinary int // of used
	byUID    map[int]int
}

func newQuota(total, each, kept int) *quota {
	return &quota{total: total, each: min(each, total), kept: kept, byUID: map[int]int{}}
}

func privileged(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// take is false, and takes nothing, where that would be too much.
func (q *quota) take(uid, n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used+n > q.total || q.byUID[uid]+n > q.each || !privileged(uid) && q.ordinary+n > q.total-q.kept {
		return false
	}
	q.add(uid, n)
	return true
}

func (q *quota) give(uid, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(uid, -n)
}

func (q *quota) add(uid, n int) {
	q.used += n
	if !privileged(uid) {
		q.ordinary += n
	}
	if q.byUID[uid] += n; q.byUID[uid] == 0 {
		delete(q.byUID, uid)
	}
}

// taken returns how much is in use.
func (q *quota) taken() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}
