package delivery

import (
	"context"
	"fmt"

	"github.com/slimchat/slimchat/im"
)

// pastClient is the client id under which an owner's record keeps how far clients that
// are signed out for good have come. No client can have it: it is no id.
const pastClient = "\x00"

// Forget ends the session of a client that is signed out for good and deletes its record,
// if gone still says so once no connection of the client can be opened. What the client
// has acknowledged stays acknowledged: the next new client of its owner does not get it.
func (e *Engine) Forget(ctx context.Context, key im.SessionKey, gone func(context.Context) (bool, error)) error {
	unlock, err := e.lockClient(ctx, key)
	if err != nil {
		return fmt.Errorf("forget a client: %w", err)
	}
	defer unlock()
	if is, err := gone(ctx); err != nil || !is {
		return err
	}
	rec, known, err := e.currentRecord(ctx, key, CloseRevoked)
	if err != nil || !known {
		return err
	}
	past := im.SessionKey{Owner: key.Owner, Client: pastClient}
	unlockPast, err := e.lockClient(ctx, past)
	if err != nil {
		return fmt.Errorf("forget a client: %w", err)
	}
	defer unlockPast()
	before, _, err := e.currentRecord(ctx, past, CloseRevoked)
	if err != nil {
		return err
	}
	data, err := (&record{Cursor: max(before.Cursor, rec.position(key.Owner)), Epoch: e.epoch}).encode()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending[past] = &pendingRecord{data: data}
	e.pending[key] = &pendingRecord{}
	return nil
}
