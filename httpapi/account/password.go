package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/slimchat/slimchat/im"
)

// HashParams are the costs of argon2id (RFC 9106 section 3.1).
type HashParams struct {
	MemoryKiB uint32
	Passes    uint32
	Threads   uint8
}

// DefaultHash is the second recommendation of OWASP's Password Storage Cheat Sheet.
var DefaultHash = HashParams{MemoryKiB: 19 * 1024, Passes: 2, Threads: 1}

const (
	saltBytes  = 16
	hashBytes  = 32
	maxQueue   = 512 // passwords that wait to be hashed
	maxWaiting = 10 * time.Second
	// Costs beyond these in a stored hash are a damaged row, not a password.
	maxMemoryKiB = 1 << 20
	maxPasses    = 100
)

// errHash says that a stored hash cannot be read.
var errHash = errors.New("account: not an argon2id hash")

// hasher hashes passwords, so many at a time as keep the memory bounded and leave processors
// to the messages. Others wait; too many are turned away.
type hasher struct {
	params  HashParams
	slots   chan struct{}
	waiting atomic.Int32
	unknown string // verified in place of the hash of a user who does not exist
}

func newHasher(params HashParams, slots int) *hasher {
	if params == (HashParams{}) {
		params = DefaultHash
	}
	if slots <= 0 {
		slots = max(1, runtime.GOMAXPROCS(0)/2)
	}
	h := &hasher{params: params, slots: make(chan struct{}, slots)}
	h.unknown = encodeHash(params, make([]byte, saltBytes), make([]byte, hashBytes))
	return h
}

// acquire waits for a slot; release gives it back.
func (h *hasher) acquire(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	if h.waiting.Add(1) > maxQueue {
		h.waiting.Add(-1)
		return errBusy
	}
	defer h.waiting.Add(-1)
	timeout := time.NewTimer(maxWaiting)
	defer timeout.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-timeout.C:
		return errBusy
	case <-ctx.Done():
		return fmt.Errorf("account: waiting to check a password: %w", ctx.Err())
	}
}

func (h *hasher) release() { <-h.slots }

// hash returns the PHC string of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	return encodeHash(h.params, salt, derive(password, salt, h.params, hashBytes)), nil
}

// verify tells whether the password is the stored one, and whether it should be hashed
// again because the costs have changed. The caller holds a slot. With an empty stored hash
// it takes as long and answers no.
func (h *hasher) verify(stored, password string) (match, stale bool, err error) {
	known := stored != ""
	if !known {
		stored = h.unknown
	}
	params, salt, want, err := decodeHash(stored)
	if err != nil {
		return false, false, err
	}
	got := derive(password, salt, params, uint32(len(want)))
	match = subtle.ConstantTimeCompare(got, want) == 1 && known
	return match, params != h.params, nil
}

func derive(password string, salt []byte, p HashParams, length uint32) []byte {
	return argon2.IDKey([]byte(norm.NFC.String(password)), salt, p.Passes, p.MemoryKiB, p.Threads, length)
}

func encodeHash(p HashParams, salt, hash []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		p.MemoryKiB, p.Passes, p.Threads, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

func decodeHash(s string) (p HashParams, salt, hash []byte, err error) {
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, errHash
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &p.MemoryKiB, &p.Passes, &p.Threads); err != nil {
		return p, nil, nil, errHash
	}
	if p.Threads == 0 || p.Passes == 0 || p.Passes > maxPasses || p.MemoryKiB > maxMemoryKiB {
		return p, nil, nil, errHash
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(part[4])
	hash, err2 := base64.RawStdEncoding.DecodeString(part[5])
	if err1 != nil || err2 != nil || len(hash) < 16 || len(hash) > 64 {
		return p, nil, nil, errHash
	}
	return p, salt, hash, nil
}

// Limits of a password.
const (
	MinPassword      = 8   // characters
	MaxPasswordBytes = 512 // bytes of UTF-8
)

func checkPassword(field, password string) error {
	switch n := len([]rune(password)); {
	case n < MinPassword:
		return im.Errorf(im.CodeInvalid, field, "has %d characters, want %d or more", n, MinPassword)
	case len(password) > MaxPasswordBytes:
		return im.Errorf(im.CodeInvalid, field, "is longer than %d bytes", MaxPasswordBytes)
	}
	return nil
}
