package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/slimchat/slimchat/im"
)

// verdict is what a sender knows of a message.
type verdict uint8

const (
	notSent  verdict = iota
	inFlight         // sent at least once, and not answered
	acked            // the server has promised it
	declined         // the server has said that it does not take it
)

// conversation is what one client of a user sends to one address: messages numbered from 1. What is known of them is
// gathered here from the publisher and from everybody who receives them.
type conversation struct {
	index  int
	sender login
	to     im.Address

	mu      sync.Mutex
	last    int       // the numbers 1..last have been sent
	verdict []verdict // by number
	seq     []uint64  // by number: the position in the log, once somebody has told it
	copySeq []uint64  // the same of the sender's own copy
}

// next takes the next number and marks it as sent.
func (c *conversation) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	for len(c.verdict) <= c.last {
		c.verdict = append(c.verdict, notSent)
		c.seq = append(c.seq, 0)
		c.copySeq = append(c.copySeq, 0)
	}
	c.verdict[c.last] = inFlight
	return c.last
}

// settle notes the server's answer. A refusal stands: in MQTT 3.1.1 it comes as an event after the PUBACK.
func (c *conversation) settle(n int, v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && n <= c.last && c.verdict[n] != declined {
		c.verdict[n] = v
	}
}

// sentSoFar is the last number that has been sent.
func (c *conversation) sentSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// place notes where message n stands in the log, as somebody was told. It returns the position noted before, if that is
// another one, and whether the message has ever been sent.
func (c *conversation) place(n int, seq uint64, isCopy bool) (other uint64, exists bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < 1 || n > c.last {
		return 0, false
	}
	at := &c.seq[n]
	if isCopy {
		at = &c.copySeq[n]
	}
	switch *at {
	case 0, seq:
		*at = seq
		return 0, true
	default:
		return *at, true
	}
}

// count tells how many messages have this verdict.
func (c *conversation) count(v verdict) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, have := range c.verdict[min(1, len(c.verdict)):] {
		if have == v {
			n++
		}
	}
	return n
}

// filler is what contents are cut from.
var filler = strings.Repeat("All the world's a stage, and all the men and women merely players. ", 1000)

// messageID is unique over all messages of a workload, and tells which one it is.
func messageID(tag string, conv, n int) string {
	return tag + "." + strconv.Itoa(conv) + "." + strconv.Itoa(n)
}

// parseID is the inverse of messageID.
func parseID(tag, id string) (conv, n int, ok bool) {
	rest, ok := strings.CutPrefix(id, tag+".")
	if !ok {
		return 0, 0, false
	}
	left, right, _ := strings.Cut(rest, ".")
	conv, err1 := strconv.Atoi(left)
	n, err2 := strconv.Atoi(right)
	return conv, n, err1 == nil && err2 == nil
}

// appendMessage appends the JSON of message n of a conversation; text is of ASCII without quotes.
func appendMessage(dst []byte, tag string, conv, n int, text string) []byte {
	return fmt.Appendf(dst, `{"id":"%s","type":"chat","content":{"type":"text","data":"%s"}}`, messageID(tag, conv, n), text)
}
