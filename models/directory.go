package models

import (
	"context"

	"github.com/slimchat/slimchat/im"
)

// Directory answers who exists; it fulfils the router's port.
type Directory struct{ Store *Store }

// Exists tells whether a local user, client or node exists. There are no rooms yet.
func (d Directory) Exists(ctx context.Context, a im.Address) (bool, error) {
	switch a.Kind {
	case im.KindUser:
		return d.Store.UserExists(ctx, a.ID)
	case im.KindClient:
		return d.Store.ClientExists(ctx, a.ID, a.Client)
	case im.KindNode:
		return d.Store.NodeExists(ctx, a.ID)
	default:
		return false, nil
	}
}

// Clients is the number of clients that a user has.
func (d Directory) Clients(ctx context.Context, uid string) (int, error) {
	return d.Store.ClientCount(ctx, uid)
}
