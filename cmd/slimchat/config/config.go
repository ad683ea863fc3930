// Package config is the one description of SlimChat's settings: the struct Config holds every key, its default and its
// explanation, and everything else (file, environment, flags, checks, the printed default and the documentation) is derived
// from it.
//
// The order is defaults < file < environment < flags, with the same names in each: mqtt.listen in the file is
// SLIMCHAT_MQTT_LISTEN in the environment and --mqtt-listen on the command line. A key that does not exist, or a value that
// cannot be, is an error and never ignored.
package config

import "time"

// Config is the whole configuration. The koanf tag is the key's name, doc its explanation; a field's value in Default is its
// default. Load returns it validated.
type Config struct {
	Domain string `koanf:"domain" doc:"This domain's name, a DNS name in lower case. It is part of every address and token: choose it once."`
	Data   string `koanf:"data" doc:"Directory for everything that the process keeps. One process at a time may use it."`

	Node Node `koanf:"node"`
	HTTP HTTP `koanf:"http"`
	MQTT MQTT `koanf:"mqtt"`

	Database     string       `koanf:"database" doc:"Where users and groups live: sqlite:{path} or postgres://user:password@host/name. {data} stands for the data directory."`
	Durability   Durability   `koanf:"durability" doc:"What an acknowledgement means. disk: the message is synced to disk; process: it survives a crash of the process, not of the machine."`
	Registration Registration `koanf:"registration" doc:"open: anyone may register an account; closed: only the operator adds accounts (slimchat user add)."`

	Token     Token     `koanf:"token"`
	Limits    Limits    `koanf:"limits"`
	Retention Retention `koanf:"retention"`
	Dedupe    Dedupe    `koanf:"dedupe"`
	Shutdown  Shutdown  `koanf:"shutdown"`
	Log       Log       `koanf:"log"`

	Cluster    Cluster    `koanf:"cluster"`
	Federation Federation `koanf:"federation"`
}

// Node names this process.
type Node struct {
	Name string `koanf:"name" doc:"Name of this node, unique in its cluster. Empty: the machine's host name."`
}

// HTTP is the listener of the REST service, its pages and MQTT over WebSocket.
type HTTP struct {
	Listen         string   `koanf:"listen" doc:"Address of the HTTP listener: REST, and MQTT over WebSocket at /mqtt. Port 0 takes any free port."`
	TLS            KeyPair  `koanf:"tls"`
	TrustedProxies []string `koanf:"trusted_proxies" doc:"Addresses or networks (CIDR) of reverse proxies whose X-Forwarded-For is believed."`
}

// MQTT is the listeners of devices.
type MQTT struct {
	Listen   string   `koanf:"listen" doc:"Address of the MQTT listener. Port 0 takes any free port."`
	TLS      MQTTTLS  `koanf:"tls"`
	Announce Announce `koanf:"announce"`
}

// Announce is where logins send devices, for servers behind a proxy or a balancer.
type Announce struct {
	TCP string `koanf:"tcp" doc:"URL of the MQTT listener that logins tell, such as mqtt://chat.example.org:1883. Empty: the host that the login came to."`
	TLS string `koanf:"tls" doc:"URL of the MQTT listener over TLS that logins tell, such as mqtts://chat.example.org:8883. Empty: as for tcp."`
	WS  string `koanf:"ws" doc:"URL of MQTT over WebSocket that logins tell, such as wss://chat.example.org/mqtt. Empty: as for tcp."`
}

// MQTTTLS is the listener of devices over TLS.
type MQTTTLS struct {
	Listen string `koanf:"listen" doc:"Address of the MQTT listener over TLS. Empty: :8883 once a certificate is configured, otherwise off."`
	Cert   string `koanf:"cert" doc:"File with the certificate chain (PEM)."`
	Key    string `koanf:"key" doc:"File with the certificate's private key (PEM)."`
}

// KeyPair names the files of a TLS certificate and its key; both or none.
type KeyPair struct {
	Cert string `koanf:"cert" doc:"File with the certificate chain (PEM)."`
	Key  string `koanf:"key" doc:"File with the certificate's private key (PEM)."`
}

// Token is about the tokens that logins hand out.
type Token struct {
	TTL Duration `koanf:"ttl" doc:"How long a token is valid from login or refresh."`
}

// Limits bounds what one client, user or address may use.
type Limits struct {
	Payload               Size `koanf:"payload" doc:"Largest message payload."`
	Attachment            Size `koanf:"attachment" doc:"Largest attachment."`
	PublishRate           int  `koanf:"publish_rate" doc:"Messages a second that one client may publish, in the long run."`
	PublishBurst          int  `koanf:"publish_burst" doc:"Messages that one client may publish at once before publish_rate applies."`
	ClientsPerUser        int  `koanf:"clients_per_user" doc:"Clients that one user may be logged in with."`
	Inflight              int  `koanf:"inflight" doc:"Messages under way to one client that it has not acknowledged yet."`
	Connections           int  `koanf:"connections" doc:"Connections to this process, of devices and over HTTP each."`
	ConnectionsPerAddress int  `koanf:"connections_per_address" doc:"Connections from one network address, of devices and over HTTP each; this machine itself is exempt."`
	Logins                int  `koanf:"logins" doc:"Failed logins in a row of one account from one network address before it has to wait."`
	Registrations         int  `koanf:"registrations" doc:"Accounts that one network address may register an hour."`
}

// Retention bounds what the log keeps.
type Retention struct {
	Age        Duration `koanf:"age" doc:"How long messages are kept, and so how long a client may stay away without missing any."`
	PerAddress int      `koanf:"per_address" doc:"Messages kept for one conversation or address; the oldest go first."`
}

// Dedupe is about publishes that arrive twice.
type Dedupe struct {
	Window Duration `koanf:"window" doc:"A message that the same sender repeats with the same id within this time is acknowledged and not delivered again."`
}

// Shutdown is about stopping.
type Shutdown struct {
	Timeout Duration `koanf:"timeout" doc:"How long a stop may take to let connections and requests end before it cuts them off."`
}

// Log is about what the process says.
type Log struct {
	Level  Level  `koanf:"level" doc:"Least severe lines to write: debug, info, warn or error."`
	Format Format `koanf:"format" doc:"text, json, or auto: text on a terminal and json elsewhere."`
}

// Cluster is about several processes that serve one domain.
type Cluster struct {
	Name     string   `koanf:"name" doc:"Name of the cluster; the same on all its nodes. Not available in this version."`
	Listen   string   `koanf:"listen" doc:"Address for the other nodes; :6222 is the usual port. Not available in this version."`
	Routes   []string `koanf:"routes" doc:"Addresses of other nodes to join. Not available in this version."`
	Replicas int      `koanf:"replicas" doc:"Copies of every message. Only 1 in this version."`
}

// Federation is about other domains.
type Federation struct {
	Listen   string `koanf:"listen" doc:"Address for the links of peer domains; :7422 is the usual port. Not available in this version."`
	Peers    []Peer `koanf:"peers" doc:"Peer domains: domain, secret (32 bytes or more, the same on both sides) and, on the side that dials, url (tls:// or wss://). Not available in this version."`
	Insecure bool   `koanf:"insecure" doc:"true allows links without TLS (nats-leaf://), for tests and private networks. Not available in this version."`
	Policy   string `koanf:"policy" doc:"closed: only the listed peers."`
}

// Peer is one peer domain.
type Peer struct {
	Domain string `koanf:"domain" yaml:"domain"`
	Secret string `koanf:"secret" yaml:"secret"`
	URL    string `koanf:"url" yaml:"url"`
}

// Durability says when a message counts as committed.
type Durability string

// The durabilities.
const (
	DurabilityDisk    Durability = "disk"
	DurabilityProcess Durability = "process"
)

// Registration says who may make accounts.
type Registration string

// The registration policies.
const (
	RegistrationOpen   Registration = "open"
	RegistrationClosed Registration = "closed"
)

// Level is the least severe log line that is written.
type Level string

// Format is the shape of log lines.
type Format string

// The log formats.
const (
	FormatAuto Format = "auto"
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// Default returns the configuration that an empty file, environment and command line give. What is derived from other keys
// ({data}, the host name, the TLS port) is still in its written form.
func Default() *Config {
	return &Config{
		Domain:       "localhost",
		Data:         "./data",
		HTTP:         HTTP{Listen: ":8080", TrustedProxies: []string{}},
		MQTT:         MQTT{Listen: ":1883"},
		Database:     "sqlite:{data}/slimchat.db",
		Durability:   DurabilityDisk,
		Registration: RegistrationOpen,
		Token:        Token{TTL: Duration(24 * time.Hour)},
		Limits: Limits{
			Payload:               64 << 10,
			Attachment:            100 << 20,
			PublishRate:           100,
			PublishBurst:          200,
			ClientsPerUser:        20,
			Inflight:              100,
			Connections:           100_000,
			ConnectionsPerAddress: 4_096,
			Logins:                10,
			Registrations:         1_000,
		},
		Retention:  Retention{Age: Duration(30 * 24 * time.Hour), PerAddress: 10_000},
		Dedupe:     Dedupe{Window: Duration(10 * time.Minute)},
		Shutdown:   Shutdown{Timeout: Duration(20 * time.Second)},
		Log:        Log{Level: "info", Format: FormatAuto},
		Cluster:    Cluster{Routes: []string{}, Replicas: 1},
		Federation: Federation{Peers: []Peer{}, Policy: "closed"},
	}
}
