package msglog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slimchat/slimchat/im"
)

// Names of what this package keeps in JetStream.
const (
	StreamName     = "IM"
	SessionsBucket = "IM_SESSIONS"

	sessionsStream = "KV_" + SessionsBucket
	sessionsPrefix = "$KV." + SessionsBucket + "."
)

// streams is the table of everything that Open creates or verifies.
func (o *Options) streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name:               StreamName,
			Description:        "every message of the domain",
			Subjects:           []string{im.SubjectAll},
			Storage:            jetstream.FileStorage,
			Retention:          jetstream.LimitsPolicy,
			Discard:            jetstream.DiscardOld,
			Replicas:           o.Replicas,
			MaxAge:             o.MaxAge,
			MaxMsgsPerSubject:  int64(o.PerAddress),
			Duplicates:         100 * time.Millisecond, // no message carries an id; the least allowed
			AllowDirect:        true,
			AllowAtomicPublish: true,
			Compression:        jetstream.NoCompression,
		},
		{
			// The layout is that of a key-value bucket, so that its tools can read it.
			Name:              sessionsStream,
			Description:       "session records by owner and client",
			Subjects:          []string{sessionsPrefix + ">"},
			Storage:           jetstream.FileStorage,
			Retention:         jetstream.LimitsPolicy,
			Discard:           jetstream.DiscardNew,
			Replicas:          o.Replicas,
			MaxMsgsPerSubject: 1,
			Duplicates:        100 * time.Millisecond,
			AllowDirect:       true,
			AllowRollup:       true,
			DenyDelete:        true,
			Compression:       jetstream.NoCompression,
		},
	}
}

// ensureStreams creates what is missing and updates what differs. It never deletes or
// recreates anything: a difference that JetStream cannot update is an error.
func (l *Log) ensureStreams(ctx context.Context) error {
	for _, want := range l.opts.streams() {
		if err := l.ensureStream(ctx, want); err != nil {
			return fmt.Errorf("msglog: stream %s: %w", want.Name, err)
		}
	}
	return nil
}

func (l *Log) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	s, err := l.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// A server that could not recover a stream starts without it. Creating it anew over
		// its files would hide that.
		dir := filepath.Join(l.opts.DataDir, "jetstream", "*", "streams", want.Name, "msgs", "*.blk")
		if found, _ := filepath.Glob(dir); len(found) > 0 {
			if fi, err := os.Stat(found[0]); err == nil && fi.Size() > 0 {
				return fmt.Errorf("%w: %s", ErrUnrecovered, filepath.Dir(found[0]))
			}
		}
		_, err = l.js.CreateStream(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	if have.Storage != want.Storage || have.Retention != want.Retention {
		return fmt.Errorf("it has storage %v and retention %v, want %v and %v, which cannot be changed",
			have.Storage, have.Retention, want.Storage, want.Retention)
	}
	if sameConfig(have, want) {
		return nil
	}
	l.log.Info("updating the configuration of a stream", "stream", want.Name)
	if _, err := l.js.UpdateStream(ctx, want); err != nil {
		return fmt.Errorf("its configuration differs and cannot be updated: %w", err)
	}
	return nil
}

// sameConfig compares what the table sets.
func sameConfig(a, b jetstream.StreamConfig) bool {
	if len(a.Subjects) != len(b.Subjects) {
		return false
	}
	for i := range a.Subjects {
		if a.Subjects[i] != b.Subjects[i] {
			return false
		}
	}
	return a.Description == b.Description && a.Discard == b.Discard && a.Replicas == b.Replicas &&
		a.MaxAge == b.MaxAge && a.MaxMsgsPerSubject == b.MaxMsgsPerSubject &&
		a.Duplicates == b.Duplicates && a.AllowDirect == b.AllowDirect &&
		a.AllowAtomicPublish == b.AllowAtomicPublish && a.AllowRollup == b.AllowRollup &&
		a.DenyDelete == b.DenyDelete && a.Compression == b.Compression
}
