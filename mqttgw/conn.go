package mqttgw

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// conn is the connection of one device. It is small, for most connections are idle:
// what only publishers need stands in inbound, and buffers are taken when there are bytes.
type conn struct {
	g        *Gateway
	t        transport
	in       input
	remote   netip.Addr
	accepted time.Duration
	excess   bool // over the limit: let in to be told so
	claimed  bool // counted in Gateway.byOwner; guarded by Gateway.mu

	// Set while connecting, then constant.
	version     packet.Version
	noProblem   bool   // the client wants no reason strings (Request Problem Information 0)
	maxPacket   uint32 // the largest packet the client takes; 0: any
	keepAlive   time.Duration
	principal   im.Principal
	cleanSource bool // its Session Expiry was 0 in CONNECT [3.14.2.2.2]

	suspect int // of the reader: so many publishes may be repetitions after a reconnect

	lastSeen atomic.Int64 // time.Duration of Gateway.now: the last whole packet
	partial  atomic.Int64 // since when a packet is incomplete; 0: none is
	busy     atomic.Bool  // handling packets: silence is our fault
	stopped  atomic.Bool  // ending, for the reader to see

	mu        sync.Mutex
	timer     *time.Timer
	session   *delivery.Session
	expiry    uint32 // seconds, session expiry
	will      *will
	inbound   *inbound
	wake      chan struct{} // closed when something that the reader waits for has changed
	out       *outBuffer    // waiting to be written
	writing   int           // bytes that the writer has taken out
	oversized []uint16      // deliveries that the client cannot take, to be acknowledged
	writer    bool          // the writing goroutine runs
	refused   bool          // a Push was refused; Ready is owed
	greeting  bool          // CONNECT has arrived
	ending    bool
	shut      bool // what was to be written is written
	finished  bool
	cause     endCause
	renewed   time.Duration // of the writer: when the write deadline was set last
}

var errEnding = errors.New("mqttgw: the connection is ending")

// open takes a connection from its first byte to its CONNACK. It runs on a goroutine of
// its own, whose stack has grown when it is done, and starts another for the session.
func (c *conn) open() {
	if c.connect() {
		go c.serve()
		return
	}
	c.discard()
	c.finish()
}

// serve handles what the device sends until the connection ends or falls silent.
func (c *conn) serve() {
	c.wakeUp()
	for {
		err := c.handleAll()
		if err != nil {
			c.fail(err)
			break
		}
		if err = c.fill(); err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			c.end(endGone, "")
			break
		}
		if c.doze() {
			return
		}
	}
	c.stayAwake()
	c.discard()
	c.finish()
}

// handleAll handles all whole packets that have been read.
func (c *conn) handleAll() error {
	if c.in.buf == nil {
		return nil
	}
	c.busy.Store(true)
	defer c.busy.Store(false)
	handled := 0
	for {
		frame, err := c.next()
		if err != nil {
			return err
		}
		if frame == nil {
			break
		}
		if c.stopped.Load() {
			return errEnding
		}
		if err := c.handle(frame); err != nil {
			return err
		}
		handled++
		c.g.stats.bytesIn.Add(uint64(len(frame)))
	}
	now := c.g.now()
	if handled > 0 {
		c.g.stats.packetsIn.Add(uint64(handled))
		c.lastSeen.Store(int64(now))
		c.partial.Store(0)
	}
	if c.settle() && c.partial.Load() == 0 {
		c.partial.Store(int64(now))
		c.resetTimer(c.g.opt.Timeouts.Packet)
	}
	return c.waitForOutput()
}

func (c *conn) handle(frame []byte) error {
	switch packet.TypeOf(frame[0]) {
	case packet.PUBLISH:
		return c.onPublish(frame)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return c.onAck(frame)
	case packet.SUBSCRIBE:
		return c.onSubscribe(frame)
	case packet.UNSUBSCRIBE:
		return c.onUnsubscribe(frame)
	case packet.PINGREQ:
		if err := packet.CheckPing(frame); err != nil {
			return err
		}
		c.send(packet.AppendPingresp)
		return nil
	case packet.DISCONNECT:
		return c.onDisconnect(frame)
	case packet.AUTH:
		if c.version != packet.V5 {
			return refuse(packet.MalformedPacket, "AUTH is not in MQTT 3.1.1")
		}
		// Re-authentication needs the method that CONNECT named, and there was none.
		return refuse(packet.ProtocolError, "AUTH without an authentication method")
	case packet.CONNECT:
		return refuse(packet.ProtocolError, "a second CONNECT") // [MQTT-3.1.0-2]
	}
	return refuse(packet.ProtocolError, packet.TypeOf(frame[0]).String()+" from a client")
}

func refuse(reason packet.Reason, msg string) error {
	return &packet.Error{Reason: reason, Msg: msg}
}

func (c *conn) onDisconnect(frame []byte) error {
	var p packet.Disconnect
	if err := p.Decode(c.version, frame); err != nil {
		return err
	}
	if p.Props.Has(packet.SessionExpiry) {
		expiry := p.Props.Uint(packet.SessionExpiry, 0)
		if c.cleanSource && expiry != 0 {
			return refuse(packet.ProtocolError, "session expiry was 0 in CONNECT") // 3.14.2.2.2
		}
		c.mu.Lock()
		c.expiry = expiry
		c.mu.Unlock()
	}
	cause := endDisconnect
	if p.Reason != packet.Success {
		cause = endDisconnectWill
	}
	c.end(cause, "")
	return errEnding
}

// onTimer looks at everything that may take too long. It runs on a goroutine of the
// runtime's timers.
func (c *conn) onTimer() {
	now := c.g.now()
	limits := &c.g.opt.Timeouts
	c.mu.Lock()
	switch {
	case c.finished:
		c.mu.Unlock()
		return
	case c.ending || !c.greeting:
		c.mu.Unlock()
		_ = c.t.Close()
		return
	case c.session == nil:
		c.mu.Unlock()
		return // CONNECT is being handled, and every step of that has a limit
	}
	c.mu.Unlock()
	next := time.Duration(0)
	if since := time.Duration(c.partial.Load()); since != 0 && !c.busy.Load() {
		if now-since >= limits.Packet {
			c.end(endKeepAlive, "a packet was not completed in time")
			return
		}
		next = limits.Packet - (now - since)
	}
	if silence := c.silence(); silence > 0 {
		left := silence - (now - time.Duration(c.lastSeen.Load()))
		if c.busy.Load() {
			left = silence
		}
		if left <= 0 {
			c.end(endKeepAlive, "nothing came for one and a half times the keep-alive")
			return
		}
		if next == 0 || left < next {
			next = left
		}
	}
	if next > 0 {
		c.resetTimer(next)
	}
}

// silence is how long the device may say nothing: one and a half times the keep-alive
// [MQTT-3.1.2-22]; 0 for ever.
func (c *conn) silence() time.Duration { return c.keepAlive + c.keepAlive/2 }

func (c *conn) resetTimer(d time.Duration) {
	c.mu.Lock()
	if !c.finished && !c.ending {
		c.timer.Reset(d)
	}
	c.mu.Unlock()
}
