// Package server is the composition root: it builds the parts of SlimChat in order, connects them, and takes them down again
// in reverse. Nothing below it knows how the others are made.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/cmd/slimchat/config"
	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/httpapi"
	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/httpapi/token"
	"github.com/slimchat/slimchat/models"
	"github.com/slimchat/slimchat/mqttgw"
	"github.com/slimchat/slimchat/msglog"
	"github.com/slimchat/slimchat/router"
)

// startTimeout bounds the start; recovering a large log takes most of it.
const startTimeout = 5 * time.Minute

// Run runs a server until ctx ends or a part of it fails for good, then stops it. ready is called with its addresses once it
// accepts connections. The error is nil after a stop in order.
func Run(ctx context.Context, cfg *config.Config, log *slog.Logger, ready func(Addresses)) error {
	s := &server{cfg: cfg, log: log, failed: make(chan error, 1)}
	s.parts.log = log
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	err := s.start(starting)
	cancel()
	if err == nil {
		log.Info("ready", "domain", cfg.Domain, "data", cfg.Data, "durability", string(cfg.Durability), "listen", s.addresses)
		ready(s.addresses)
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-s.failed:
			log.Error("stopping because a part failed", "error", err)
		}
	} else if ctx.Err() != nil {
		err = nil // asked to stop before it was ready
	}
	s.draining.Store(true)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Shutdown.Timeout.Std())
	defer cancel()
	stop := s.parts.stop(stopping)
	s.loops.Wait() // their listeners are closed
	if stop != nil {
		return errors.Join(err, stop)
	}
	log.Info("stopped")
	return err
}

// server is what has been built so far.
type server struct {
	cfg   *config.Config
	log   *slog.Logger
	parts lifecycle

	loops     sync.WaitGroup // of listeners
	draining  atomic.Bool
	failed    chan error // the first failure of a part that cannot go on
	addresses Addresses

	node      *cluster.Node
	messages  *msglog.Log
	store     *models.Store
	feed      *models.Feed
	lastSeen  *models.LastSeen
	authority *token.Authority
	engine    *delivery.Engine
	router    *router.Router
	gateway   *mqttgw.Gateway
	api       *httpapi.API

	mqtt, mqtts net.Listener // mqtts is nil without a certificate
	mqttsConfig *tls.Config
}

// start builds the server from the ground up. Every part is noted with its stop as soon as it runs, so that a start that
// fails half-way is taken down too.
func (s *server) start(ctx context.Context) error {
	for _, build := range []func(context.Context) error{
		s.startCluster,
		s.startLog,
		s.startModels,
		s.startDelivery,
		s.startRouter,
		s.startChanges,
		s.startGateway,
		s.startHTTP,
		s.acceptDevices,
		s.announce,
	} {
		if err := build(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startCluster locks the data directory and starts the embedded NATS server.
func (s *server) startCluster(ctx context.Context) (err error) {
	s.node, err = cluster.Start(ctx, cluster.Options{
		DataDir: s.cfg.Data, Domain: s.cfg.Domain, NodeName: s.cfg.Node.Name,
		SyncAlways: msglog.NeedsSyncAlways(msglog.Durability(s.cfg.Durability), s.cfg.Cluster.Replicas),
		MaxPayload: natsPayload(s.cfg), Logger: s.log.With("part", "nats"),
	})
	if err != nil {
		return fmt.Errorf("data directory %s: %w", s.cfg.Data, err)
	}
	s.parts.started("nats", s.node.Stop)
	return removeListenFile(s.cfg.Data) // of a process that had no time to
}

// envelopeRoom is what a message grows by on its way into the log: the envelope's own fields and what the broker stamps.
const envelopeRoom = 128 << 10

// natsPayload is the largest message that the embedded server must take.
func natsPayload(cfg *config.Config) int {
	return max(cluster.DefaultMaxPayload, int(cfg.Limits.Payload)+envelopeRoom)
}

// startLog opens the message log.
func (s *server) startLog(ctx context.Context) (err error) {
	s.messages, err = msglog.Open(ctx, msglog.Options{
		Server: s.node, DataDir: s.cfg.Data, Durability: msglog.Durability(s.cfg.Durability), Replicas: s.cfg.Cluster.Replicas,
		MaxAge: s.cfg.Retention.Age.Std(), PerAddress: s.cfg.Retention.PerAddress,
		MaxMsgBytes: natsPayload(s.cfg) - 4096, Logger: s.log.With("part", "log"),
	})
	if err != nil {
		return fmt.Errorf("message log: %w", err)
	}
	s.parts.started("log", s.messages.Close)
	return nil
}

// startModels opens the accounts database and what is kept of it in memory. The feed of changes starts later, once its
// listeners are there.
func (s *server) startModels(ctx context.Context) (err error) {
	if s.store, err = models.Open(ctx, s.cfg.Database); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.parts.started("database", func(context.Context) error { return s.store.Close() })
	s.lastSeen = models.NewLastSeen(s.store, s.log)
	s.parts.started("last seen", func(context.Context) error { s.lastSeen.Close(); return nil })
	s.feed = models.NewFeed(s.store, s.log)
	s.authority, err = token.New(ctx, token.Options{Domain: s.cfg.Domain, Keys: s.store, Log: s.log})
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	s.parts.started("tokens", func(context.Context) error { s.authority.Close(); return nil })
	return nil
}

// startDelivery rebuilds what sessions need from the log.
func (s *server) startDelivery(ctx context.Context) error {
	s.engine = delivery.New(delivery.Options{
		Log: s.messages, Logger: s.log.With("part", "delivery"), Domain: s.cfg.Domain,
		Window: s.cfg.Limits.Inflight, DedupeAge: s.cfg.Dedupe.Window.Std(),
	})
	if err := s.engine.Start(ctx); err != nil {
		return fmt.Errorf("delivery: %w", err)
	}
	s.parts.started("delivery", s.engine.Stop)
	return nil
}

// startRouter makes the one entrance to the log.
func (s *server) startRouter(context.Context) error {
	s.router = router.New(router.Options{
		Domain: s.cfg.Domain, Log: s.messages, Directory: directory{s.store}, Window: s.engine.Window(), Pusher: s.engine,
		Logger: s.log.With("part", "router"), PayloadLimit: int(s.cfg.Limits.Payload),
		PublishRate: s.cfg.Limits.PublishRate, PublishBurst: s.cfg.Limits.PublishBurst,
	})
	return nil
}

// startGateway makes the MQTT gateway and binds its listeners. Devices are let in by acceptDevices.
func (s *server) startGateway(context.Context) (err error) {
	s.gateway, err = mqttgw.New(mqttgw.Options{
		Domain: s.cfg.Domain, Node: s.cfg.Node.Name,
		Auth:     authenticator{s.authority},
		Sessions: sessions{engine: s.engine, authority: s.authority, lastSeen: s.lastSeen},
		Router:   s.router, Log: s.log.With("part", "mqtt"),
		Revoked: s.authority.Revoked,
		Remote:  func(r *http.Request) netip.Addr { return s.api.Remote(r) }, // who asks has come through the API
		Limits: mqttgw.Limits{
			Connections: s.cfg.Limits.Connections, PerPrincipal: s.cfg.Limits.ClientsPerUser, PerAddress: s.cfg.Limits.ConnectionsPerAddress,
			Inflight: s.cfg.Limits.Inflight, PacketSize: int(s.cfg.Limits.Payload) + packetRoom,
		},
	})
	if err != nil {
		return err
	}
	if s.mqtt, err = s.listen("mqtt.listen", s.cfg.MQTT.Listen); err != nil {
		return err
	}
	s.addresses.MQTT = s.mqtt.Addr().String()
	if s.cfg.MQTT.TLS.Cert == "" {
		return nil
	}
	if s.mqttsConfig, err = loadCertificate("mqtt.tls", s.cfg.MQTT.TLS.Cert, s.cfg.MQTT.TLS.Key, s.log); err != nil {
		return err
	}
	if s.mqtts, err = s.listen("mqtt.tls.listen", s.cfg.MQTT.TLS.Listen); err != nil {
		return err
	}
	s.addresses.MQTTS = s.mqtts.Addr().String()
	return nil
}

// acceptDevices opens the MQTT listeners. They are the last to open and the first to close, so that /readyz can say that we
// are stopping while devices are told to go.
func (s *server) acceptDevices(context.Context) error {
	s.parts.started("mqtt", s.gateway.Shutdown)
	s.serve("mqtt", mqttgw.ErrClosed, func() error { return s.gateway.Serve(s.mqtt) })
	if s.mqtts != nil {
		s.serve("mqtts", mqttgw.ErrClosed, func() error { return s.gateway.ServeTLS(s.mqtts, s.mqttsConfig) })
	}
	return nil
}

// listen binds a listener, which is closed at the latest when the server stops.
func (s *server) listen(setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	s.parts.started(setting, func(context.Context) error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

// packetRoom is what a packet may have above its payload: topic, properties, and a payload that is a little too large, so
// that it is refused by itself and not with its connection.
const packetRoom = 32 << 10

// startHTTP serves REST, and MQTT over WebSocket.
func (s *server) startHTTP(context.Context) error {
	api, err := httpapi.New(httpapi.Deps{
		Domain: s.cfg.Domain, Tokens: s.authority, Publisher: s.router, History: history{s.messages}, Log: s.log.With("part", "http"),
		Accounts: account.New(account.Options{
			Store: s.store, Tokens: s.authority, Log: s.log.With("part", "accounts"), Sessions: online{s.engine}, Node: s.cfg.Node.Name,
			TTL: s.cfg.Token.TTL.Std(), ClientsPerUser: s.cfg.Limits.ClientsPerUser, Closed: s.cfg.Registration == config.RegistrationClosed,
			Logins: s.cfg.Limits.Logins, Registrations: s.cfg.Limits.Registrations,
		}),
		Endpoints: s.endpoints, Ready: s.readiness(), TrustedProxies: s.cfg.TrustedProxies(), PayloadLimit: int(s.cfg.Limits.Payload),
	})
	if err != nil {
		return err
	}
	s.api = api
	api.Mount("/mqtt", s.gateway.Handler())
	h := api.Server()
	if s.cfg.HTTP.TLS.Cert != "" {
		if h.TLSConfig, err = loadCertificate("http.tls", s.cfg.HTTP.TLS.Cert, s.cfg.HTTP.TLS.Key, s.log); err != nil {
			return err
		}
	}
	l, err := s.listen("http.listen", s.cfg.HTTP.Listen)
	if err != nil {
		return err
	}
	s.addresses.HTTP = l.Addr().String()
	l = httpapi.LimitListener(l, httpapi.ConnLimits{
		Total: s.cfg.Limits.Connections, PerAddress: s.cfg.Limits.ConnectionsPerAddress, Exempt: s.cfg.TrustedProxies(),
	})
	s.serve("http", http.ErrServerClosed, func() error {
		if h.TLSConfig != nil {
			return h.ServeTLS(l, "", "")
		}
		return h.Serve(l)
	})
	s.parts.started("http", func(ctx context.Context) error {
		if err := h.Shutdown(ctx); err != nil {
			return errors.Join(err, h.Close())
		}
		return nil
	})
	return nil
}

// serve runs a listener's loop; how it ends before the server stops is a failure of the server.
func (s *server) serve(name string, stopped error, loop func() error) {
	s.loops.Go(func() {
		if err := loop(); !errors.Is(err, stopped) && !errors.Is(err, net.ErrClosed) {
			select {
			case s.failed <- fmt.Errorf("listener %s: %w", name, err):
			default: // another one failed before
			}
		}
	})
}

// announce tells the machine that we are ready.
func (s *server) announce(context.Context) error {
	if err := s.addresses.write(s.cfg.Data); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.cfg.Data, "run"), err)
	}
	s.parts.started("listen.json", func(context.Context) error { return removeListenFile(s.cfg.Data) })
	return nil
}

// readiness is what /readyz asks beside the database. A server that is stopping is not ready, so that balancers send nobody
// new while it drains.
func (s *server) readiness() []httpapi.Check {
	return []httpapi.Check{
		{Name: "nats", Run: func(context.Context) error { return s.node.Healthy() }},
		{Name: "log", Run: func(context.Context) error { return s.messages.Healthy() }},
		{Name: "serving", Run: func(context.Context) error {
			if s.draining.Load() {
				return errors.New("stopping")
			}
			return nil
		}},
	}
}
