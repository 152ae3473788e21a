package core

import "math/bits"

// Disk is the file system that a store lies on, in bytes.
type Disk struct {
	Capacity int64 `json:"capacity"`
	// Available is what a user may still fill.
	Available int64 `json:"available"`
}

// Used is how full it is, in parts of a hundred, rounded up; one without capacity is empty.
func (d Disk) Used() int {
	if d.Capacity <= 0 {
		return 0
	}
	return 100 - int(share(min(max(d.Available, 0), d.Capacity), 100, d.Capacity))
}

// share is a * b / c without running over.
func share(a, b, c int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	quotient, _ := bits.Div64(high, low, uint64(c))
	return int64(quotient)
}

// Thresholds say when a disk is too full, and when no more, in parts of a hundred: as the kubelet's
// imageGCHighThresholdPercent and imageGCLowThresholdPercent.
type Thresholds struct{ High, Low int }

// Wanted is how many bytes are to become free: none below High, else as many as it takes to come down to Low.
func (t Thresholds) Wanted(d Disk) int64 {
	if d.Capacity <= 0 || d.Used() < t.High {
		return 0
	}
	return max(0, share(d.Capacity, int64(100-t.Low), 100)-d.Available)
}
