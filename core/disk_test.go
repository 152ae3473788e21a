package core

import "testing"

func TestThresholds(t *testing.T) {
	for _, tt := range []struct {
		disk Disk
		high int
		want int64
	}{
		{Disk{1000, 160}, 85, 0},
		{Disk{1000, 151}, 85, 49}, // as the kubelet: usage is rounded up
		{Disk{1000, 0}, 85, 200},
		{Disk{1000, -5}, 85, 205}, // beyond what is left for root
		{Disk{1000, 5000}, 85, 0},
		{Disk{}, 85, 0},
		{Disk{1000, 1000}, 0, 0}, // nothing is to become free of an empty one
		{Disk{1 << 62, 0}, 85, (1 << 62) / 5},
	} {
		if got := (Thresholds{High: tt.high, Low: 80}).Wanted(tt.disk); got != tt.want {
			t.Errorf("%+v above %d: %d bytes, want %d", tt.disk, tt.high, got, tt.want)
		}
	}
}
