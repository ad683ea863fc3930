package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slimchat/slimchat/im"
)

// unavailable is why a setting that belongs to a later version is refused instead of ignored.
const unavailable = "is not available in this version yet; remove the setting"

// minSecret is the least length of a peer's secret in bytes.
const minSecret = 32

// check reports every value that cannot be. It looks at the values alone, not at files or the network.
func (c *Config) check(problem func(key, reason string)) {
	k := checker{problem}
	k.domain("domain", c.Domain)
	if c.Data == "" {
		problem("data", "must name a directory")
	}
	if c.Node.Name != "" {
		k.valid("node.name", c.Node.Name, im.CheckID(c.Node.Name))
	}
	k.address("http.listen", c.HTTP.Listen)
	k.pair("http.tls", c.HTTP.TLS.Cert, c.HTTP.TLS.Key)
	for _, proxy := range c.HTTP.TrustedProxies {
		if _, err := ParseNetwork(proxy); err != nil {
			problem("http.trusted_proxies", err.Error())
		}
	}
	k.address("mqtt.listen", c.MQTT.Listen)
	k.pair("mqtt.tls", c.MQTT.TLS.Cert, c.MQTT.TLS.Key)
	if c.MQTT.TLS.Listen != "" {
		k.address("mqtt.tls.listen", c.MQTT.TLS.Listen)
		if c.MQTT.TLS.Cert == "" {
			problem("mqtt.tls.listen", fmt.Sprintf("%q needs mqtt.tls.cert and mqtt.tls.key", c.MQTT.TLS.Listen))
		}
	}
	k.url("mqtt.announce.tcp", c.MQTT.Announce.TCP, "mqtt")
	k.url("mqtt.announce.tls", c.MQTT.Announce.TLS, "mqtts")
	k.url("mqtt.announce.ws", c.MQTT.Announce.WS, "ws", "wss")
	k.database("database", c.Database)
	k.oneOf("durability", string(c.Durability), string(DurabilityDisk), string(DurabilityProcess))
	k.oneOf("registration", string(c.Registration), string(RegistrationOpen), string(RegistrationClosed))
	k.oneOf("log.level", string(c.Log.Level), "debug", "info", "warn", "error")
	k.oneOf("log.format", string(c.Log.Format), string(FormatAuto), string(FormatText), string(FormatJSON))
	c.checkLimits(k)
	c.checkCluster(k)
	c.checkFederation(k)
}

func (c *Config) checkLimits(k checker) {
	k.duration("token.ttl", c.Token.TTL, time.Minute, 400*day)
	k.duration("retention.age", c.Retention.Age, time.Minute, 3650*day)
	k.duration("dedupe.window", c.Dedupe.Window, time.Second, 7*day)
	k.duration("shutdown.timeout", c.Shutdown.Timeout, time.Second, time.Hour)
	k.size("limits.payload", c.Limits.Payload, 1<<10, 4<<20)
	k.size("limits.attachment", c.Limits.Attachment, 1<<10, 1<<40)
	k.number("limits.publish_rate", c.Limits.PublishRate, 1, 1_000_000_000)
	k.number("limits.publish_burst", c.Limits.PublishBurst, 1, 1_000_000_000)
	k.number("limits.clients_per_user", c.Limits.ClientsPerUser, 1, 1_000)
	k.number("limits.inflight", c.Limits.Inflight, 1, 10_000)
	k.number("limits.connections", c.Limits.Connections, 1, 100_000_000)
	k.number("limits.connections_per_address", c.Limits.ConnectionsPerAddress, 1, 100_000_000)
	k.number("limits.logins", c.Limits.Logins, 1, 1_000_000_000)
	k.number("limits.registrations", c.Limits.Registrations, 1, 1_000_000_000)
	k.number("retention.per_address", c.Retention.PerAddress, 1, 1_000_000_000)
}

func (c *Config) checkCluster(k checker) {
	if c.Cluster.Listen != "" {
		k.address("cluster.listen", c.Cluster.Listen)
		k.problem("cluster.listen", "clustering "+unavailable)
	}
	if len(c.Cluster.Routes) > 0 {
		k.problem("cluster.routes", "clustering "+unavailable)
	}
	if c.Cluster.Name != "" {
		k.problem("cluster.name", "clustering "+unavailable)
	}
	switch c.Cluster.Replicas {
	case 1:
	case 3, 5:
		k.problem("cluster.replicas", fmt.Sprintf("%d: clustering %s", c.Cluster.Replicas, unavailable))
	default:
		k.problem("cluster.replicas", fmt.Sprintf("%d is not a number of replicas: want 1, 3 or 5", c.Cluster.Replicas))
	}
}

func (c *Config) checkFederation(k checker) {
	f := c.Federation
	k.oneOf("federation.policy", f.Policy, "closed")
	if f.Listen != "" {
		k.address("federation.listen", f.Listen)
		k.problem("federation.listen", "federation "+unavailable)
	}
	if f.Insecure {
		k.problem("federation.insecure", "federation "+unavailable)
	}
	if len(f.Peers) > 0 {
		k.problem("federation.peers", "federation "+unavailable)
	}
	for i, peer := range f.Peers {
		key := fmt.Sprintf("federation.peers[%d]", i)
		k.domain(key+".domain", peer.Domain)
		if len(peer.Secret) < minSecret {
			k.problem(key+".secret", fmt.Sprintf("has %d bytes: want %d or more", len(peer.Secret), minSecret))
		}
		schemes := []string{"tls", "wss"}
		if f.Insecure {
			schemes = append(schemes, "nats-leaf")
		}
		k.url(key+".url", peer.URL, schemes...)
	}
}

// resolve fills in what is derived from other values and from the machine.
func (c *Config) resolve() error {
	c.Database = strings.ReplaceAll(c.Database, "{data}", filepath.ToSlash(c.Data))
	if c.MQTT.TLS.Cert != "" && c.MQTT.TLS.Listen == "" {
		c.MQTT.TLS.Listen = ":8883"
	}
	if c.Node.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("node.name: the machine's host name is unknown (%w); set one", err)
		}
		if err := im.CheckID(host); err != nil {
			return fmt.Errorf("node.name: the machine's host name %q cannot be a node's name (%w); set one", host, err)
		}
		c.Node.Name = host
	}
	return nil
}

// checker has one method for every shape of value.
type checker struct{ problem func(key, reason string) }

func (k checker) valid(key, value string, err error) {
	if err != nil {
		k.problem(key, fmt.Sprintf("%q: %s", value, im.AsError(err).Message))
	}
}

func (k checker) domain(key, value string) {
	k.valid(key, value, im.CheckDomain(value))
}

func (k checker) address(key, value string) {
	if err := checkAddress(value); err != nil {
		k.problem(key, fmt.Sprintf("%q is not an address to listen on: %v", value, err))
	}
}

func checkAddress(value string) error {
	_, port, err := net.SplitHostPort(value)
	if addrErr := (*net.AddrError)(nil); errors.As(err, &addrErr) {
		return fmt.Errorf("%s; want host:port or :port", addrErr.Err)
	}
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

// url checks a URL that may be left out.
func (k checker) url(key, value string, schemes ...string) {
	if value == "" {
		return
	}
	if u, err := url.Parse(value); err != nil || u.Host == "" || u.User != nil || !slices.Contains(schemes, u.Scheme) {
		k.problem(key, fmt.Sprintf("%q: want %s://host:port", value, strings.Join(schemes, ":// or ")))
	}
}

func (k checker) pair(section, cert, key string) {
	if cert != "" && key == "" {
		k.problem(section+".key", "is missing: a certificate needs its key")
	}
	if cert == "" && key != "" {
		k.problem(section+".cert", "is missing: a key needs its certificate")
	}
}

func (k checker) oneOf(key, value string, choices ...string) {
	if !slices.Contains(choices, value) {
		k.problem(key, fmt.Sprintf("%q: want %s", value, strings.Join(choices, " or ")))
	}
}

func (k checker) duration(key string, value Duration, least, most time.Duration) {
	if value.Std() < least || value.Std() > most {
		k.problem(key, fmt.Sprintf("%s is out of range: want %s to %s", value, Duration(least), Duration(most)))
	}
}

func (k checker) size(key string, value, least, most Size) {
	if value < least || value > most {
		k.problem(key, fmt.Sprintf("%s is out of range: want %s to %s", value, least, most))
	}
}

func (k checker) number(key string, value, least, most int) {
	if value < least || value > most {
		k.problem(key, fmt.Sprintf("%d is out of range: want %d to %d", value, least, most))
	}
}

// database checks the shape of a database's address and never repeats it: it may hold a password.
func (k checker) database(key, value string) {
	scheme, rest, _ := strings.Cut(value, ":")
	switch scheme {
	case "sqlite":
		if rest == "" {
			k.problem(key, "sqlite: names no file")
		}
	case "postgres", "postgresql":
		if u, err := url.Parse(value); err != nil || u.Host == "" && u.Query().Get("host") == "" {
			k.problem(key, "is not of the shape postgres://user:password@host/name")
		}
	default:
		k.problem(key, "want sqlite:{path} or postgres://user:password@host/name")
	}
}

// ParseNetwork reads an address (a network of one) or a network in CIDR notation.
func ParseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", s)
	}
	return prefix.Masked(), nil
}

// TrustedProxies are the networks of http.trusted_proxies.
func (c *Config) TrustedProxies() []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range c.HTTP.TrustedProxies {
		if network, err := ParseNetwork(text); err == nil { // Load has refused others
			networks = append(networks, network)
		}
	}
	return networks
}
