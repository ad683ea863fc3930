package mqttgw

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWillDelayIsBounded(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		delay  time.Duration
		expiry uint32
		want   time.Duration
	}{
		{0, neverExpires, 0},
		{time.Minute, neverExpires, time.Minute},
		{time.Minute, 30, 30 * time.Second},
		{time.Minute, 0, 0},
		{year, neverExpires, time.Hour},
		{year, neverExpires - 1, time.Hour},
	} {
		require.Equal(t, c.want, (&will{delay: c.delay}).delayOf(c.expiry))
	}
}
