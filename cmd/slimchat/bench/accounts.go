package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"sync"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
)

// restParallel is how many registrations and logins are under way at a time: each costs the server a password hash.
const restParallel = 4

// SlimChat is how a run gets its accounts at a SlimChat server.
type SlimChat struct {
	REST *client.REST
	// File, when not empty, is where the accounts and their tokens are kept (readable by this user alone), so that the next
	// run need not register and log in again.
	File string
}

// accounts registers users and logs their clients in.
type accounts struct {
	SlimChat
	run *run

	mu   sync.Mutex
	kept keptAccounts
}

// keptAccounts is the content of SlimChat.File.
type keptAccounts struct {
	Prefix   string               `json:"prefix"`
	Password string               `json:"password"`
	Logins   map[string]keptLogin `json:"logins"` // by user name and device
}

type keptLogin struct {
	Client string `json:"client"`
	Token  string `json:"token"`
}

// newAccounts reads the accounts of earlier runs, or makes up names for new ones.
func newAccounts(s SlimChat, r *run) (*accounts, error) {
	a := &accounts{SlimChat: s, run: r, kept: keptAccounts{Prefix: "bench-" + r.id, Password: rand.Text(), Logins: map[string]keptLogin{}}}
	if s.File == "" {
		return a, nil
	}
	text, err := os.ReadFile(s.File)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &a.kept); err != nil {
		return nil, fmt.Errorf("%s: %w", s.File, err)
	}
	return a, nil
}

// keep writes the accounts for the next run.
func (a *accounts) keep() error {
	if a.File == "" {
		return nil
	}
	text, err := json.Marshal(a.kept)
	if err != nil {
		return err
	}
	return os.WriteFile(a.File, text, 0o600)
}

func (a *accounts) users(ctx context.Context, n int) ([]identity, error) {
	list := make([]identity, n)
	err := a.run.each(ctx, "accounts", n, restParallel, func(ctx context.Context, i int) (err error) {
		list[i], err = a.identity(ctx, fmt.Sprintf("%s-%d", a.kept.Prefix, i), "bench", true)
		return err
	})
	return list, errors.Join(err, a.keep())
}

// group is the clients of one user: what is sent to the user reaches each of them.
func (a *accounts) group(ctx context.Context, n int) ([]identity, error) {
	name := a.kept.Prefix + "-all"
	list := make([]identity, n)
	first, err := a.identity(ctx, name, "bench-0", true)
	if err != nil {
		return nil, err
	}
	list[0] = first
	err = a.run.each(ctx, "accounts", n-1, restParallel, func(ctx context.Context, i int) (err error) {
		list[i+1], err = a.identity(ctx, name, fmt.Sprintf("bench-%d", i+1), false)
		return err
	})
	return list, errors.Join(err, a.keep())
}

// identity is a client of the user, kept from an earlier run or logged in now.
func (a *accounts) identity(ctx context.Context, name, device string, register bool) (identity, error) {
	key := name + " " + device
	a.mu.Lock()
	kept, found := a.kept.Logins[key]
	a.mu.Unlock()
	if !found {
		var err error
		if kept, err = a.login(ctx, name, device, register); err != nil {
			return identity{}, err
		}
		a.mu.Lock()
		a.kept.Logins[key] = kept
		a.mu.Unlock()
	}
	return identity{clientID: kept.Client, user: name, password: kept.Token, inbox: "$IM/user/" + name}, nil
}

func (a *accounts) login(ctx context.Context, name, device string, register bool) (keptLogin, error) {
	if register {
		err := a.REST.Register(ctx, name, a.kept.Password)
		if refusal := (*client.Error)(nil); err != nil && (!errors.As(err, &refusal) || refusal.Status != http.StatusConflict) {
			return keptLogin{}, fmt.Errorf("registering %s: %w", name, err)
		}
	}
	login, err := a.REST.Login(ctx, name, a.kept.Password, client.Device{Type: "bench", App: "slimchat-bench", Dev: device, ID: device})
	if err != nil {
		return keptLogin{}, fmt.Errorf("logging %s in: %w", name, err)
	}
	return keptLogin{Client: login.Client.ID, Token: login.Token}, nil
}
