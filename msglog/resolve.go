package msglog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/slimchat/slimchat/im"
)

// resolve settles groups whose acknowledgement did not come, was an error or named another
// position than it should: g and all that were published after it. It waits until the
// stream has dealt with everything that was published, looks at what the log really holds
// from the last known position on, and treats each record accordingly. When even that
// cannot be found out, the log fails.
func (c *committer) resolve(g *group, cause error) {
	c.resolving.Store(true)
	defer c.resolving.Store(false)
	c.pub.Lock()
	defer c.pub.Unlock()
	groups := []*group{g}
drain:
	for {
		select {
		case g, ok := <-c.flight:
			if !ok {
				break drain
			}
			groups = append(groups, g)
		default:
			break drain
		}
	}
	defer func() {
		for range groups {
			<-c.slots
		}
	}()
	c.l.stats.resolved.Add(1)
	var items []item
	for _, g := range groups {
		items = append(items, g.items...)
	}
	c.l.log.Warn("the outcome of a commit is unknown, looking at the log", "records", len(items), "after", c.last, "cause", cause)
	if err := c.settle(items, errors.Is(cause, errAckTimeout)); err != nil {
		c.l.fail(err)
		c.reject(items, unavailable(c.l.failed.Load().err, "the server cannot store messages now"))
	}
}

func (c *committer) settle(items []item, timedOut bool) error {
	before := c.reconnects
	last, err := c.settledLast()
	if err != nil {
		return err
	}
	stored, err := c.l.scan(c.ctx, c.last, last)
	if err != nil {
		return err
	}
	found, missing := match(items, stored)
	c.last = last
	found, half := c.completePairs(found)
	c.owed = append(c.owed, half...)
	c.l.log.Info("looked at the log", "stored", len(found), "half stored", len(half), "missing", len(missing), "last", c.last)
	c.handOver(found)
	if len(c.owed) > 0 || len(missing) > 0 && timedOut && c.reconnects == before {
		// What the connection lost is no wonder. Otherwise: JetStream says nothing when it
		// cannot write, and never writes to that stream again.
		c.dead.Store(true)
		c.l.queue.signal()
	}
	c.reject(missing, unavailable(ErrRefused, "the server could not store the message"))
	return nil
}

// completePairs writes the copies that are missing: a message that is in the log will be
// seen, so its copy must be there too. After the first one that fails it does not try the
// others. Messages without their copy are neither acknowledged nor refused until the
// stream is written again, because neither would be true.
func (c *committer) completePairs(found []storedItem) (whole, half []storedItem) {
	for i := range found {
		it := &found[i]
		if !it.copyStored && len(half) == 0 {
			seq, err := c.publishOne(it.rec.CopySubject, it.rec.CopyData)
			if err == nil {
				it.copyStored, c.last = true, max(c.last, seq)
			} else {
				c.l.log.Warn("the copy of a stored message cannot be written now", "seq", it.seq, "error", err)
			}
		}
		if it.copyStored {
			whole = append(whole, *it)
		} else {
			half = append(half, *it)
		}
	}
	return whole, half
}

// handOver passes what is in the log on to be synced and acknowledged.
func (c *committer) handOver(found []storedItem) {
	if len(found) == 0 {
		return
	}
	g := &group{last: c.last}
	for i := range found {
		found[i].copy = c.last
		g.items = append(g.items, found[i].item)
		g.msgs += found[i].msgs()
		g.bytes += found[i].bytes()
	}
	c.synced <- g
}

// rejectOwed gives up messages without their copy: the next start completes them.
func (c *committer) rejectOwed(err error) {
	c.pub.Lock()
	owed := c.owed
	c.owed = nil
	c.pub.Unlock()
	for i := range owed {
		c.reject([]item{owed[i].item}, err)
	}
}

// revive brings a stream back whose store has met a write error, once there is room on the
// disk. It runs where groups are published, by a caller who owns so many slots, and waits
// until no group is on its way.
func (c *committer) revive(owned int) error {
	free, err := c.space.free()
	if err != nil {
		return unavailable(fmt.Errorf("free space: %w", err), "the server cannot store messages now")
	}
	if free < c.space.min {
		return unavailable(ErrDiskFull, "the server's disk is full")
	}
	if time.Since(c.revived) < reviveInterval {
		return unavailable(ErrRefused, "the server cannot store messages now")
	}
	c.revived = time.Now()
	if c.l.opts.Revive == nil {
		c.l.fail(errors.New("JetStream cannot write to the stream any more"))
		return c.l.writeErr()
	}
	for n := owned; n < cap(c.slots); n++ {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-c.ctx.Done():
			return closedErr()
		}
	}
	c.pub.Lock()
	defer c.pub.Unlock()
	c.l.log.Warn("JetStream has met a write error, starting it again")
	if err := c.l.opts.Revive(); err != nil {
		c.l.log.Error("starting JetStream again", "error", err)
		return unavailable(fmt.Errorf("%w: %w", ErrRefused, err), "the server cannot store messages now")
	}
	last, err := c.l.lastSeq(c.ctx)
	if err == nil && last < c.l.Position() {
		c.l.fail(fmt.Errorf("the log ends at %d, before the durable position %d", last, c.l.Position()))
		return c.l.writeErr()
	}
	if err != nil {
		return unavailable(fmt.Errorf("%w: %w", ErrRefused, err), "the server cannot store messages now")
	}
	c.last = last
	var whole []storedItem
	whole, c.owed = c.completePairs(c.owed)
	c.handOver(whole)
	if len(c.owed) > 0 {
		return unavailable(ErrRefused, "the server cannot store messages now")
	}
	c.l.revivals.Add(1)
	c.dead.Store(false)
	c.l.log.Info("JetStream writes again", "last", last)
	return nil
}

const reviveInterval = time.Second

// fencePatience is how long a server may be silent until the log fails.
const fencePatience = 30 * time.Second

// fence returns when the stream has dealt with everything that this connection published
// before. It publishes a message that the stream must refuse, which happens in its turn.
func (c *committer) fence() error {
	deadline := time.Now().Add(fencePatience)
	for {
		m := nats.NewMsg(im.SubjectRoot + ".none.fence")
		m.Header.Set("Nats-Expected-Stream", "-")
		ctx, cancel := context.WithTimeout(c.ctx, time.Second)
		r, err := c.nc.RequestMsgWithContext(ctx, m)
		cancel()
		if err == nil {
			if a := parseAck(r.Data); a.err != nil {
				return nil
			}
			return errors.New("the stream took a message that it must refuse")
		}
		if c.ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", errStillUnknown, err)
		}
		select { // not connected, or no answer yet
		case <-time.After(50 * time.Millisecond):
		case <-c.ctx.Done():
		}
	}
}

// settledLast returns the end of the log once all that was published has been dealt with.
// After a reconnect the server may still be reading what the lost connection brought, in
// front of which no fence stands: then the end must have stopped moving.
func (c *committer) settledLast() (uint64, error) {
	last := uint64(0)
	for round := 0; ; round++ {
		if err := c.fence(); err != nil {
			return 0, err
		}
		end, err := c.l.lastSeq(c.ctx)
		if err != nil {
			return 0, err
		}
		if n := c.nc.Stats().Reconnects; n == c.reconnects {
			return end, nil
		} else if round > 0 && end == last {
			c.reconnects = n
			return end, nil
		}
		last = end
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.ctx.Done():
			return 0, c.ctx.Err()
		}
	}
}

// publishOne stores one message and returns its position.
func (c *committer) publishOne(subject string, data []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.l.opts.AckTimeout)
	defer cancel()
	r, err := c.nc.RequestWithContext(ctx, subject, data)
	if err != nil {
		return 0, err
	}
	a := parseAck(r.Data)
	return a.seq, a.err
}

// storedItem is an item whose message is in the log.
type storedItem struct {
	item
	copyStored bool
}

// match finds out which items the log holds; found is in the order of positions.
func match(items []item, stored []rawEntry) (found []storedItem, missing []item) {
	type place struct {
		item int
		copy bool
	}
	wanted := make(map[string][]place, 2*len(items))
	key := func(subject string, data []byte) string { return subject + "\x00" + string(data) }
	for i := range items {
		rec := &items[i].rec
		k := key(rec.Subject, rec.Data)
		wanted[k] = append(wanted[k], place{i, false})
		if rec.CopySubject != "" {
			k := key(rec.CopySubject, rec.CopyData)
			wanted[k] = append(wanted[k], place{i, true})
		}
	}
	seqs := make([]uint64, len(items))
	copies := make([]bool, len(items))
	for _, e := range stored {
		k := key(e.subject, e.data)
		if w := wanted[k]; len(w) > 0 {
			if wanted[k] = w[1:]; w[0].copy {
				copies[w[0].item] = true
			} else {
				seqs[w[0].item] = e.seq
			}
		}
	}
	for i := range items {
		if seqs[i] == 0 {
			missing = append(missing, items[i])
			continue
		}
		it := items[i]
		it.seq = seqs[i]
		found = append(found, storedItem{it, copies[i] || it.rec.CopySubject == ""})
	}
	slices.SortFunc(found, func(a, b storedItem) int { return cmp.Compare(a.seq, b.seq) })
	return found, missing
}
