package msglog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// Durability says what an acknowledgement promises.
type Durability string

const (
	// DurabilityDisk promises that the message survives losing power.
	DurabilityDisk Durability = "disk"
	// DurabilityProcess promises that it survives the end of the process.
	DurabilityProcess Durability = "process"
)

// Connector opens connections to the embedded server, *cluster.Node for one. They must
// reconnect by themselves and must not buffer publishes while they are not connected.
type Connector interface {
	Connect(name string, opts ...nats.Option) (*nats.Conn, error)
}

// Defaults of Options.
const (
	DefaultMaxAge       = 30 * 24 * time.Hour
	DefaultPerAddress   = 10_000
	DefaultQueueMsgs    = 16_384
	DefaultQueueBytes   = 64 << 20
	DefaultMinFree      = 64 << 20
	DefaultAckTimeout   = 2 * time.Second
	DefaultReadConns    = 4
	DefaultHistoryConns = 4
	DefaultMaxMsgBytes  = 1<<20 - 4096
)

// Options configure a Log. Server and DataDir are required; zero values of the others
// mean their defaults.
type Options struct {
	Server     Connector
	DataDir    string // the directory whose file system is synced and guarded
	Durability Durability
	Replicas   int // of the stream and buckets; 1, the default, is all that this version takes

	MaxAge     time.Duration // how long messages are kept
	PerAddress int           // how many messages are kept of each subject

	MaxMsgBytes int // the largest subject and payload that Append takes
	QueueMsgs   int // messages that wait for their commit before Append blocks
	QueueBytes  int // bytes of those
	// MinFree is how many bytes the file system must have free for appends to be taken,
	// so that JetStream never meets a full disk in the middle of a write.
	MinFree    int64
	AckTimeout time.Duration // until the outcome of a write is looked up in the log
	// Revive restarts JetStream after a write error, cluster.Node's RestartJetStream for
	// one. Without it such an error makes the log unwritable.
	Revive    func() error
	ReadConns int // connections for reading; also the limit of concurrent reads
	// HistoryConns is the same for History and Find alone.
	HistoryConns int

	// OnCommitted, when set, is called after the last done callback of each group, on the
	// same goroutine, so that callers can flush what the callbacks produced. It must not
	// block.
	OnCommitted func()
	// Syncer replaces the sync of the file system; nil takes the platform's.
	Syncer Syncer
	// Free replaces the measuring of free space; nil takes the platform's.
	Free func() (bytes int64, err error)

	Logger *slog.Logger // nil discards
}

// NeedsSyncAlways tells whether the server must sync each write by itself, because this
// package cannot do it for a group: there are replicas on other machines, or this
// platform cannot sync a file system.
func NeedsSyncAlways(d Durability, replicas int) bool {
	return d == DurabilityDisk && (replicas > 1 || !canSyncFS)
}

func (o *Options) complete() error {
	if o.Server == nil || o.DataDir == "" {
		return errors.New("msglog: no server or no data directory")
	}
	if s, ok := o.Server.(interface{ RestartJetStream() error }); ok && o.Revive == nil {
		o.Revive = s.RestartJetStream
	}
	if o.Durability == "" {
		o.Durability = DurabilityDisk
	}
	if o.Durability != DurabilityDisk && o.Durability != DurabilityProcess {
		return fmt.Errorf("msglog: unknown durability %q", o.Durability)
	}
	setDefault(&o.Replicas, 1)
	setDefault(&o.MaxAge, DefaultMaxAge)
	setDefault(&o.PerAddress, DefaultPerAddress)
	setDefault(&o.MaxMsgBytes, DefaultMaxMsgBytes)
	setDefault(&o.QueueMsgs, DefaultQueueMsgs)
	setDefault(&o.QueueBytes, DefaultQueueBytes)
	setDefault(&o.MinFree, DefaultMinFree)
	setDefault(&o.AckTimeout, DefaultAckTimeout)
	setDefault(&o.ReadConns, DefaultReadConns)
	setDefault(&o.HistoryConns, DefaultHistoryConns)
	if o.Replicas != 1 {
		// The committer counts on being the only writer, and the durable position on hearing
		// of every write.
		return fmt.Errorf("msglog: %d replicas: this version keeps its log on one node", o.Replicas)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
