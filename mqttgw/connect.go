package mqttgw

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// suspects is how many publishes after a session was resumed may repeat earlier ones
// without saying so. Each costs a look into the log, so they are few.
const suspects = 4

// connect reads CONNECT and answers it. It tells whether the device is connected.
func (c *conn) connect() bool {
	frame := c.firstPacket()
	if frame == nil {
		return false
	}
	var p packet.Connect
	if err := p.Decode(frame); err != nil {
		c.refuseMalformed(&p, err)
		return false
	}
	c.version = p.Version
	r := c.accept(&p)
	if r != nil {
		c.refuseConnect(r)
		return false
	}
	return true
}

// firstPacket waits for the first packet, which must be a CONNECT [MQTT-3.1.0-1]; nil
// when there was none, and the connection is ending.
func (c *conn) firstPacket() []byte {
	for {
		frame, err := c.next()
		if err == nil && frame != nil && packet.TypeOf(frame[0]) == packet.CONNECT {
			c.mu.Lock()
			c.greeting = true
			c.mu.Unlock()
			c.g.stats.packetsIn.Add(1)
			c.g.stats.bytesIn.Add(uint64(len(frame)))
			return frame
		}
		if err == nil && c.in.buf != nil && c.in.buf.end > c.in.buf.pos &&
			packet.TypeOf(c.in.buf.data[c.in.buf.pos]) != packet.CONNECT {
			err = refuse(packet.ProtocolError, "the first packet is no CONNECT")
		}
		if err != nil || frame != nil {
			c.g.stats.malformed.Add(1)
			c.end(endRefused, "")
			return nil
		}
		c.settle()
		if err := c.fill(); err != nil {
			c.end(endGone, "")
			return nil
		}
	}
}

// refuseMalformed answers a CONNECT that cannot be decoded: 3.1.1 has a code for an
// unknown protocol level alone, 5.0 for everything.
func (c *conn) refuseMalformed(p *packet.Connect, err error) {
	c.g.stats.malformed.Add(1)
	var bad *packet.Error
	switch {
	case !errors.As(err, &bad):
	case bad.Reason == packet.UnsupportedVersion:
		c.version = packet.V311
		if p.Version > packet.V5 {
			c.version = packet.V5
		}
		c.refuseConnect(&refusal{bad.Reason, bad.Msg})
		return
	case p.Version == packet.V5:
		c.version = packet.V5
		c.refuseConnect(&refusal{bad.Reason, bad.Msg})
		return
	}
	c.end(endRefused, "")
}

func (c *conn) refuseConnect(r *refusal) {
	c.g.stats.refused.Add(1)
	c.g.opt.Log.Debug("a connection was refused", "remote", c.remote.String(), "reason", r.text)
	p := packet.Connack{Code: r.code(c.version)}
	if r.text != "" {
		p.Props.SetBytes(packet.ReasonString, []byte(r.text))
	}
	c.mu.Lock()
	c.appendFittingLocked(func(dst []byte) []byte { return packet.AppendConnack(dst, c.version, &p) },
		func() { p.Props.Reset() })
	c.mu.Unlock()
	c.end(endRefused, "")
}

// accept decides about a well-formed CONNECT, opens the session and sends CONNACK.
func (c *conn) accept(p *packet.Connect) *refusal {
	c.noProblem = p.Props.Uint(packet.RequestProblemInfo, 1) == 0
	c.maxPacket = p.Props.Uint(packet.MaximumPacketSize, 0)
	switch {
	case c.g.isClosing():
		return &refusal{packet.ServerUnavailable, "the server is shutting down"}
	case c.excess:
		return &refusal{packet.ServerBusy, "the server has all the connections that it can hold"}
	}
	if r := checkConnect(p); r != nil {
		return r
	}
	release, r := c.queue()
	if r != nil {
		return r
	}
	defer release()
	if r := c.authenticate(p); r != nil {
		return r
	}
	if p.Will {
		w, err := newWill(p, c.g.opt.Domain)
		if err != nil {
			return &refusal{packet.InvalidTopicName, "the will's topic " + im.AsError(err).Message}
		}
		c.will = w
	}
	if !c.g.claim(c) {
		return &refusal{packet.ConnectionRateExceeded, "too many clients of this user are connected"}
	}
	return c.attach(p)
}

// smallestPacket is the least Maximum Packet Size that a client may have, in bytes, so that
// CONNACK and the other answers fit.
const smallestPacket = 128

// checkConnect refuses what needs no look at the token.
func checkConnect(p *packet.Connect) *refusal {
	switch {
	case p.Props.Has(packet.AuthMethod):
		return &refusal{packet.BadAuthMethod, "there is no enhanced authentication here"}
	case !p.HasUsername || !p.HasPassword || len(p.Username) == 0 || len(p.Password) == 0:
		return &refusal{packet.BadUserNameOrPassword, "a user name and a token are required"}
	case !utf8.Valid(p.Password):
		return &refusal{packet.BadUserNameOrPassword, "the password is not a token"}
	case im.CheckID(string(p.Username)) != nil:
		return &refusal{packet.BadUserNameOrPassword, "the user name is not a user's or node's id"}
	case len(p.ClientID) == 0 && p.Version == packet.V311 && !p.CleanStart:
		// 3.1.1 [MQTT-3.1.3-8]
		return &refusal{packet.InvalidClientID, "an empty client identifier needs a clean session"}
	case len(p.ClientID) > 0 && im.CheckID(string(p.ClientID)) != nil:
		return &refusal{packet.InvalidClientID, "the client identifier " + im.AsError(im.CheckID(string(p.ClientID))).Message}
	case p.Props.Uint(packet.MaximumPacketSize, smallestPacket) < smallestPacket:
		return &refusal{packet.PacketTooLarge, ""}
	case p.WillRetain && p.Version == packet.V5:
		return &refusal{packet.RetainNotSupported, "nothing is retained here"} // [MQTT-3.2.2-13]
	}
	return nil
}

// queue waits for a turn to authenticate.
func (c *conn) queue() (release func(), r *refusal) {
	release = func() { <-c.g.handshakes }
	select {
	case c.g.handshakes <- struct{}{}:
		return release, nil
	default:
	}
	patience := time.NewTimer(c.g.opt.Timeouts.Call)
	defer patience.Stop()
	select {
	case c.g.handshakes <- struct{}{}:
		return release, nil
	case <-c.g.ctx.Done():
		return nil, &refusal{packet.ServerUnavailable, "the server is shutting down"}
	case <-patience.C:
		return nil, &refusal{packet.ServerBusy, "too many are connecting now"}
	}
}

func (c *conn) authenticate(p *packet.Connect) *refusal {
	ctx, cancel := context.WithTimeout(c.g.ctx, c.g.opt.Timeouts.Call)
	defer cancel()
	name, id := string(p.Username), string(p.ClientID)
	who, _, err := c.g.opt.Auth.Authenticate(ctx, name, string(p.Password), id)
	if err != nil {
		return authRefusal(err)
	}
	// Whatever the Authenticator checked: the token speaks for its owner and client alone.
	if who.Address.ID != name || id != "" && who.Client != id || who.Client == "" {
		return &refusal{packet.NotAuthorized, "the user name or client identifier is not the token's"}
	}
	c.principal = who
	return nil
}

// attach opens the session and sends CONNACK, after which messages may flow.
func (c *conn) attach(p *packet.Connect) *refusal {
	o := delivery.AttachOptions{Principal: c.principal, Clean: p.CleanStart, Window: 65535, Conn: c}
	if p.Version == packet.V5 {
		o.Expiry = p.Props.Uint(packet.SessionExpiry, 0)
		o.Window = int(p.Props.Uint(packet.ReceiveMaximum, 65535))
	} else if !p.CleanStart {
		o.Expiry = neverExpires
	}
	c.cleanSource = o.Expiry == 0
	ctx, cancel := context.WithTimeout(c.g.ctx, c.g.opt.Timeouts.Call)
	defer cancel()
	session, present, err := c.g.opt.Sessions.Attach(ctx, o)
	if err != nil {
		if !errors.Is(err, delivery.ErrStopping) {
			c.g.opt.Log.Warn("a session cannot be opened", "owner", c.principal.Address.String(), "client", c.principal.Client, "error", err)
		}
		return attachRefusal(err)
	}
	c.g.forgetWill(c.principal.Key())
	c.g.stats.sessions.Add(1)
	ack := packet.AppendConnack(nil, c.version, c.connack(p, present && !p.CleanStart))
	c.lastSeen.Store(int64(c.g.now()))
	if present {
		c.suspect = suspects
	}
	c.mu.Lock()
	c.session, c.expiry = session, o.Expiry
	if !c.ending {
		if c.keepAlive > 0 {
			c.timer.Reset(c.silence())
		} else {
			c.timer.Stop()
		}
		b := c.outLocked()
		b.data = append(b.data, ack...)
		c.kickLocked()
	}
	c.mu.Unlock()
	session.Start()
	return nil
}

// connack says what the device gets, and what not (section 3.2.2.3).
func (c *conn) connack(p *packet.Connect, present bool) *packet.Connack {
	ack := &packet.Connack{SessionPresent: present}
	c.keepAlive = time.Duration(p.KeepAlive) * time.Second
	if p.Version != packet.V5 {
		return ack
	}
	limits := &c.g.opt.Limits
	longest := c.g.opt.Timeouts.KeepAlive
	if c.keepAlive == 0 || c.keepAlive > longest {
		c.keepAlive = longest
		ack.Props.SetUint(packet.ServerKeepAlive, uint32(longest/time.Second))
	}
	if len(p.ClientID) == 0 {
		ack.Props.SetBytes(packet.AssignedClientID, []byte(c.principal.Client))
	}
	if limits.Inflight < 65535 {
		ack.Props.SetUint(packet.ReceiveMaximum, uint32(limits.Inflight))
	}
	ack.Props.SetUint(packet.MaximumPacketSize, uint32(limits.PacketSize))
	ack.Props.SetUint(packet.TopicAliasMaximum, topicAliasMaximum)
	ack.Props.SetUint(packet.RetainAvailable, 0)
	ack.Props.SetUint(packet.SharedSubAvailable, 0)
	ack.Props.SetUint(packet.SubIDAvailable, 0)
	return ack
}
