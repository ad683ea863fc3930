package msglog

import "time"

// Syncer makes everything that has been written to the log's files durable.
type Syncer interface {
	// Sync returns when all that was written before the call survives losing power. An
	// error means that nobody knows what does.
	Sync() error
	Close() error
}

// noSyncer is for durability process, and for servers that sync by themselves.
type noSyncer struct{}

func (noSyncer) Sync() error  { return nil }
func (noSyncer) Close() error { return nil }

// space decides whether the file system has room for more. It measures now and then and
// subtracts in between what is appended, so that our own writes cannot outrun it.
type space struct {
	free     func() (int64, error)
	min      int64
	left     int64 // of what was measured, above min
	measured time.Time
}

const spaceInterval = 250 * time.Millisecond

// take reports whether n bytes may be written. Not safe for concurrent use.
func (s *space) take(n int64, now time.Time) (bool, error) {
	// JetStream adds a header to each record and an entry to its index: twice is ample.
	n *= 2
	if s.left < n || now.Sub(s.measured) >= spaceInterval {
		free, err := s.free()
		if err != nil {
			return false, err
		}
		s.left, s.measured = free-s.min, now
	}
	if s.left < n {
		return false, nil
	}
	s.left -= n
	return true, nil
}
