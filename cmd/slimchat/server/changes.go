package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// changeQueue bounds the clients whose row must be looked at because something about them changed.
const changeQueue = 4096

// changes carries what happens to accounts, in whichever process, to the parts of this one that keep something of them.
type changes struct {
	*server
	clients chan im.SessionKey
}

// startChanges begins to follow the changes of accounts. Unexpired revocations are known when it returns.
func (s *server) startChanges(ctx context.Context) error {
	c := &changes{server: s, clients: make(chan im.SessionKey, changeQueue)}
	s.feed.OnChange(s.authority.Apply)
	s.feed.OnChange(c.apply)
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.forgetRemoved(working)
	}()
	if err := s.feed.Start(ctx); err != nil {
		cancel()
		<-done
		return fmt.Errorf("following the changes of accounts: %w", err)
	}
	s.parts.started("changes", func(context.Context) error {
		s.feed.Close()
		cancel()
		<-done
		return nil
	})
	return nil
}

// apply is a listener of the feed: quick, and it writes nothing to the database.
func (c *changes) apply(change models.Change) {
	switch change.Kind {
	case models.ChangeRevoke:
		c.engine.Kick(im.SessionKey{Owner: change.Owner, Client: change.Client}, change.Ticket, delivery.CloseRevoked)
	case models.ChangeUser:
		c.router.Evict(change.Owner)
	case models.ChangeClient:
		c.router.Evict(change.Owner, im.Principal{Address: change.Owner, Client: change.Client}.ClientAddress())
		select {
		case c.clients <- im.SessionKey{Owner: change.Owner, Client: change.Client}:
		default:
			// The record of a client that is gone stays behind; it costs a few bytes.
			c.log.Warn("too many changes of clients at once; a session record may stay behind")
		}
	case models.ChangeReset:
		c.router.EvictAll()
	}
}

// lookUpTimeout bounds one look at the database.
const lookUpTimeout = 10 * time.Second

// forgetRemoved deletes the sessions of clients that are signed out for good, until ctx ends.
func (c *changes) forgetRemoved(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-c.clients:
			if err := c.forgetIfGone(ctx, key); err != nil && ctx.Err() == nil {
				c.log.Warn("a client's session could not be removed", "owner", key.Owner.String(), "client", key.Client, "error", err)
			}
		}
	}
}

func (c *changes) forgetIfGone(ctx context.Context, key im.SessionKey) error {
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	return c.engine.Forget(ctx, key, func(ctx context.Context) (bool, error) {
		_, err := c.store.Client(ctx, key.Owner, key.Client)
		if errors.Is(err, models.ErrNotFound) {
			return true, nil
		}
		return false, err
	})
}
