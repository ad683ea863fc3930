package msglog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slimchat/slimchat/im"
)

// LoadSession returns the record of a client, nil when there is none.
func (l *Log) LoadSession(ctx context.Context, key im.SessionKey) ([]byte, error) {
	m, err := l.nc.RequestWithContext(ctx, directGet+sessionsStream+"."+sessionsPrefix+key.SessionBucketKey(), nil)
	if err != nil {
		return nil, fmt.Errorf("msglog: load session: %w", err)
	}
	switch status := header(m, "Status"); status {
	case "":
		return m.Data, nil
	case "404":
		return nil, nil
	default:
		return nil, fmt.Errorf("msglog: load session: status %s %s", status, header(m, "Description"))
	}
}

// ListSessions returns the records of all clients of an owner by client id.
func (l *Log) ListSessions(ctx context.Context, owner im.Address) (map[string][]byte, error) {
	prefix := sessionsPrefix + im.SessionKey{Owner: owner}.OwnerPrefix()
	out := make(map[string][]byte)
	_, err := l.get(ctx, sessionsStream, []getRequest{{multiLast: []string{prefix + "*"}}}, func(_ int, e rawEntry) {
		if client, err := im.DecodeToken(strings.TrimPrefix(e.subject, prefix)); err == nil {
			out[client] = e.data
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return out, nil
}

// StoreSessions writes records; a nil record deletes. It returns when the server has
// written all of them, or with the first error; the others may then be written or not.
// They are not synced: a session record that is lost repeats messages, it never skips one.
func (l *Log) StoreSessions(ctx context.Context, records map[im.SessionKey][]byte) error {
	if len(records) == 0 {
		return nil
	}
	if err := l.sessionsWritable(records); err != nil {
		return err
	}
	inbox := nats.NewInbox()
	acks := make(chan ack, len(records))
	sub, err := l.nc.Subscribe(inbox, func(m *nats.Msg) { acks <- parseAck(m.Data) })
	if err != nil {
		return fmt.Errorf("msglog: store sessions: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	n := 0
	for key, data := range records {
		subject := sessionsPrefix + key.SessionBucketKey()
		switch {
		case data == nil:
			err = l.deleteSession(ctx, subject)
		case len(data) > l.opts.MaxMsgBytes:
			// Its client repeats messages after a crash; the others must not suffer for it.
			l.log.Error("a session record is too large to be stored", "owner", key.Owner.String(), "client", key.Client, "bytes", len(data))
		default:
			n++
			err = l.nc.PublishRequest(subject, inbox, data)
		}
		if err != nil {
			return fmt.Errorf("msglog: store sessions: %w", err)
		}
	}
	silence := time.NewTimer(sessionTimeout)
	defer silence.Stop()
	for range n {
		select {
		case a := <-acks:
			if a.err != nil {
				return fmt.Errorf("msglog: store sessions: %w", a.err)
			}
		case <-silence.C:
			if l.nc.IsConnected() {
				l.commit.dead.Store(true) // as when an append is not answered
			}
			return fmt.Errorf("msglog: store sessions: %w", errAckTimeout)
		case <-ctx.Done():
			return fmt.Errorf("msglog: store sessions: %w", ctx.Err())
		}
	}
	return nil
}

// sessionTimeout is ample for one store; a silent server has met a write error.
const sessionTimeout = 15 * time.Second

// sessionsWritable guards the bucket's files as mayWrite guards the log's.
func (l *Log) sessionsWritable(records map[im.SessionKey][]byte) error {
	free, err := l.commit.space.free()
	if err != nil {
		return fmt.Errorf("msglog: free space: %w", err)
	}
	for _, data := range records {
		free -= int64(2*len(data) + 512)
	}
	if free < l.opts.MinFree/2 {
		return unavailable(ErrDiskFull, "the server's disk is full")
	}
	return nil
}

// deleteSession removes a record and every trace of it, unlike a bucket's own delete,
// which keeps a marker for each key for ever.
func (l *Log) deleteSession(ctx context.Context, subject string) error {
	s, err := l.js.Stream(ctx, sessionsStream)
	if err != nil {
		return err
	}
	if err := s.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	return nil
}
