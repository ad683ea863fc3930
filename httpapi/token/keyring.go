package token

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/models"
)

const (
	// activationDelay lets every process learn of a key before it signs: the feed tells
	// them within half a second.
	activationDelay = 10 * time.Second
	rotateAfter     = 30 * 24 * time.Hour
	upkeepInterval  = time.Minute
	refreshPause    = time.Second // between two looks for a key that is not known
)

// key is a signing key in memory.
type key struct {
	id        string
	private   ed25519.PrivateKey
	public    ed25519.PublicKey
	activated time.Time
	ends      time.Time // no token signed with it can be valid after that; zero for not retired
}

// keyset is what is known at one moment; it never changes.
type keyset struct {
	byID  map[string]*key
	order []*key // the one activated last comes first
}

// keyring holds the domain's keys and keeps them up to date.
type keyring struct {
	store Keys
	log   *slog.Logger
	now   func() time.Time
	prune func(time.Time)

	set     atomic.Pointer[keyset]
	refresh chan struct{}
	stop    context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex // guards what follows: the look-ups of unknown keys
	looking bool       // one is under way
	asked   time.Time  // when the last one ended
	failed  bool       // and that the store did not answer it
}

func newKeyring(ctx context.Context, o Options, prune func(time.Time)) (*keyring, error) {
	r := &keyring{
		store: o.Keys, log: o.Log, now: o.Now, prune: prune,
		refresh: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if len(r.set.Load().order) == 0 {
		if err := r.rotate(ctx, 0); err != nil {
			return nil, err
		}
	}
	var running context.Context
	running, r.stop = context.WithCancel(context.Background())
	go r.run(running)
	return r, nil
}

func (r *keyring) close() {
	r.stop()
	<-r.done
}

// run reads the keys again when a change is announced, and every minute in case that an
// announcement was lost; it rotates the key when it is old.
func (r *keyring) run(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(upkeepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.refresh:
			r.report(ctx, r.load(ctx))
		case <-ticker.C:
			r.prune(r.now())
			r.report(ctx, r.upkeep(ctx))
		}
	}
}

func (r *keyring) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		r.log.Warn("the signing keys cannot be brought up to date", "error", err)
	}
}

func (r *keyring) refreshSoon() {
	select {
	case r.refresh <- struct{}{}:
	default: // one is due already
	}
}

func (r *keyring) upkeep(ctx context.Context) error {
	if err := r.load(ctx); err != nil {
		return err
	}
	order := r.set.Load().order
	if len(order) == 0 || r.now().Sub(order[0].activated) > rotateAfter {
		if err := r.rotate(ctx, activationDelay); err != nil {
			return err
		}
	}
	for _, k := range order {
		if !k.ends.IsZero() && r.now().After(k.ends) {
			return r.store.DeleteSigningKeys(ctx, r.now().Add(-MaxTTL).UnixMilli())
		}
	}
	return nil
}

// rotate adds a key that signs after the delay.
func (r *keyring) rotate(ctx context.Context, delay time.Duration) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generate a key: %w", err)
	}
	err = r.store.AddSigningKey(ctx, models.SigningKey{
		KID: rand.Text()[:12], Seed: private.Seed(), Activated: r.now().Add(delay).UnixMilli(),
	})
	if err != nil {
		return err
	}
	return r.load(ctx)
}

// load reads the keys from the store.
func (r *keyring) load(ctx context.Context) error {
	rows, err := r.store.SigningKeys(ctx)
	if err != nil {
		return err
	}
	set := &keyset{byID: make(map[string]*key, len(rows))}
	for _, row := range rows {
		if len(row.Seed) != ed25519.SeedSize {
			return fmt.Errorf("the seed of key %s has %d bytes, want %d", row.KID, len(row.Seed), ed25519.SeedSize)
		}
		k := &key{id: row.KID, private: ed25519.NewKeyFromSeed(row.Seed), activated: time.UnixMilli(row.Activated)}
		k.public, _ = k.private.Public().(ed25519.PublicKey)
		if row.Retired > 0 {
			k.ends = time.UnixMilli(row.Retired).Add(MaxTTL)
		}
		set.byID[k.id] = k
		set.order = append(set.order, k)
	}
	r.set.Store(set)
	return nil
}

// signing is the key that was activated last. A first key whose activation lies ahead of
// this machine's clock signs all the same.
func (r *keyring) signing(now time.Time) *key {
	order := r.set.Load().order
	for _, k := range order {
		if !k.activated.After(now) {
			return k
		}
	}
	if len(order) > 0 {
		return order[len(order)-1]
	}
	return nil
}

// public returns the key that the token names. An unknown one is looked up at most once a
// second, so that made-up names cost the database nothing; and one caller at a time waits for
// it, so that they hold up nobody when the database does not answer. The others hear
// ErrUnavailable meanwhile, and may try again.
func (r *keyring) public(ctx context.Context, id string) (ed25519.PublicKey, error) {
	if k, ok := r.find(id); ok {
		return k, nil
	}
	if id == "" || len(id) > 64 {
		return nil, ErrTokenInvalid
	}
	if err := r.beginLookup(); err != nil {
		if k, ok := r.find(id); ok { // the one that has just ended brought it
			return k, nil
		}
		return nil, err
	}
	err := r.load(context.WithoutCancel(ctx)) // the answer is for others as well
	r.endLookup(err)
	r.report(ctx, err)
	if k, ok := r.find(id); ok {
		return k, nil
	}
	if err != nil {
		return nil, ErrUnavailable
	}
	return nil, ErrTokenInvalid
}

// beginLookup gives the right to ask the store, or the answer for those who may not now.
func (r *keyring) beginLookup() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.looking:
		return ErrUnavailable
	case r.now().Sub(r.asked) >= refreshPause:
		r.looking = true
		return nil
	case r.failed:
		return ErrUnavailable
	}
	return ErrTokenInvalid
}

func (r *keyring) endLookup(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looking, r.asked, r.failed = false, r.now(), err != nil
}

func (r *keyring) find(id string) (ed25519.PublicKey, bool) {
	k, ok := r.set.Load().byID[id]
	if !ok || !k.ends.IsZero() && r.now().After(k.ends) {
		return nil, false
	}
	return k.public, true
}
