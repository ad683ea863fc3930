package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// load loads a configuration from a file's text (none when empty), variables and flags.
func load(t *testing.T, file string, environ []string, args ...string) (*Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags)
	require.NoError(t, flags.Parse(args))
	src := Sources{Environ: environ, Flags: flags, File: filepath.Join(t.TempDir(), "s.yaml")}
	require.NoError(t, os.WriteFile(src.File, []byte(file), 0o600))
	return Load(src)
}

func TestLayers(t *testing.T) {
	const file = "mqtt:\n  listen: 127.0.0.1:1\nhttp.listen: 127.0.0.1:2\nlimits:\n  payload: 32 KiB\n  inflight: 7\nretention:\n"
	c, err := load(t, file,
		[]string{"SLIMCHAT_LIMITS_INFLIGHT=8", "SLIMCHAT_HTTP_TRUSTED_PROXIES=10.0.0.0/8, ::1", "SLIMCHAT_LIMITS_PUBLISH_RATE=1_000"},
		"--limits-inflight=9", "--retention-age", "1d12h")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", c.MQTT.Listen, "file")
	require.Equal(t, "127.0.0.1:2", c.HTTP.Listen, "a file's key with points")
	require.Equal(t, Size(32<<10), c.Limits.Payload)
	require.Equal(t, 9, c.Limits.Inflight, "a flag goes before the environment and the file")
	require.Equal(t, []string{"10.0.0.0/8", "::1"}, c.HTTP.TrustedProxies, "environment")
	require.Equal(t, 1000, c.Limits.PublishRate)
	require.Equal(t, 36*time.Hour, c.Retention.Age.Std(), "flag")
	require.Equal(t, "./data", c.Data, "default")
}

func TestDerived(t *testing.T) {
	c, err := load(t, "", nil, "--data=/srv/chat", "--mqtt-tls-cert=c.pem", "--mqtt-tls-key=k.pem")
	require.NoError(t, err)
	require.Equal(t, "sqlite:/srv/chat/slimchat.db", c.Database)
	require.Equal(t, ":8883", c.MQTT.TLS.Listen)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, host, c.Node.Name)

	c, err = load(t, "", nil)
	require.NoError(t, err)
	require.Empty(t, c.MQTT.TLS.Listen, "no certificate, no listener")
}

func TestDefaultFileIsOptionalAndANamedOneIsNot(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := Load(Sources{})
	require.NoError(t, err)
	require.Equal(t, ":1883", c.MQTT.Listen)

	require.NoError(t, os.WriteFile(DefaultFile, []byte("mqtt.listen: :7\n"), 0o600))
	c, err = Load(Sources{})
	require.NoError(t, err)
	require.Equal(t, ":7", c.MQTT.Listen)

	_, err = Load(Sources{File: "other.yaml"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRefusals(t *testing.T) {
	long := strings.Repeat("s", 32)
	for name, test := range map[string]struct {
		file    string
		environ []string
		args    []string
		want    []string
	}{
		"unknown key":             {file: "# first\nmqtt:\n  lisen: :1\n", want: []string{"s.yaml:3: no such setting: mqtt.lisen; did you mean mqtt.listen?"}},
		"unknown and far":         {file: "colour: red\n", want: []string{"s.yaml:1: no such setting: colour"}},
		"unknown variable":        {environ: []string{"SLIMCHAT_MQTT_LISTN=:1"}, want: []string{"SLIMCHAT_MQTT_LISTN; did you mean SLIMCHAT_MQTT_LISTEN?"}},
		"twice":                   {file: "mqtt:\n  listen: :1\nmqtt.listen: :2\n", want: []string{"s.yaml:3", "set twice"}},
		"same key again":          {file: "domain: a\ndomain: b\n", want: []string{"s.yaml:2: domain is set twice", "s.yaml:1"}},
		"section as value":        {file: "mqtt: :1883\n", want: []string{"s.yaml:1: mqtt holds settings"}},
		"value as section":        {file: "data:\n  x: 1\n", want: []string{"s.yaml:1: data takes a value"}},
		"no value":                {file: "data:\n", want: []string{"s.yaml:1: data has no value"}},
		"not settings":            {file: "- a\n", want: []string{"s.yaml:1"}},
		"two documents":           {file: "domain: a\n---\ndomain: b\n", want: []string{"more than one document"}},
		"broken":                  {file: "a: [\n", want: []string{"s.yaml"}},
		"size":                    {file: "limits.payload: 12 parsecs\n", want: []string{"s.yaml:1: limits.payload", `"12 parsecs" is not a size`}},
		"size range":              {file: "limits.payload: 1GiB\n", want: []string{"limits.payload: 1GiB is out of range"}},
		"duration":                {environ: []string{"SLIMCHAT_TOKEN_TTL=soon"}, want: []string{"SLIMCHAT_TOKEN_TTL: token.ttl", `"soon" is not a duration`}},
		"number":                  {args: []string{"--limits-inflight=many"}, want: []string{`--limits-inflight: limits.inflight: "many" is not a whole number`}},
		"rate":                    {args: []string{"--limits-publish-rate=0"}, want: []string{"limits.publish_rate: 0 is out of range"}},
		"choice":                  {file: "durability: often\n", want: []string{`durability: "often": want disk or process`}},
		"address":                 {file: "http.listen: '8080'\n", want: []string{`http.listen: "8080" is not an address`, "missing port"}},
		"port":                    {file: "http.listen: :80800\n", want: []string{`http.listen`, "80800"}},
		"domain":                  {file: "domain: Example.org\n", want: []string{`domain: "Example.org"`}},
		"node":                    {file: "node.name: a/b\n", want: []string{`node.name: "a/b"`}},
		"half a key pair":         {file: "http.tls.cert: c.pem\n", want: []string{"http.tls.key: is missing"}},
		"TLS without certificate": {file: "mqtt.tls.listen: :8883\n", want: []string{"mqtt.tls.listen", "mqtt.tls.cert"}},
		"proxy":                   {file: "http.trusted_proxies: [10.0.0.0/8, here]\n", want: []string{`http.trusted_proxies: "here"`}},
		"database":                {file: "database: mysql://root:hunter2@h/d\n", want: []string{"database: want sqlite"}},
		"every problem at once":   {file: "durability: x\nregistration: y\n", want: []string{"s.yaml:1: durability", "s.yaml:2: registration"}},
		"cluster":                 {file: "cluster:\n  listen: :6222\n  replicas: 3\n", want: []string{"cluster.listen: clustering is not available", "cluster.replicas: 3: clustering is not"}},
		"replicas":                {file: "cluster.replicas: 2\n", want: []string{"cluster.replicas: 2 is not a number of replicas"}},
		"federation":              {file: "federation.listen: :7422\n", want: []string{"federation.listen: federation is not available"}},
		"peers": {file: "federation.peers: [{domain: b.org, secret: " + long + ", url: 'tls://b.org:7422'}]\n",
			want: []string{"federation.peers: federation is not available"}},
		"peers checked": {environ: []string{"SLIMCHAT_FEDERATION_PEERS=[{domain: B, secret: short, url: 'http://x'}]"},
			want: []string{"peers[0].domain", "peers[0].secret: has 5 bytes", "peers[0].url"}},
		"alias":              {file: "a: &x {b: *x}\n", want: []string{"s.yaml:1", "aliases"}},
		"peer's unknown key": {file: "federation.peers: [{domane: b.org}]\n", want: []string{"want a list of peers"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.file, test.environ, test.args...)
			require.Error(t, err)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "hunter2", "a password")
			require.NotContains(t, err.Error(), "short,", "a secret")
		})
	}
}

func TestForeignVariablesAreLeftAlone(t *testing.T) {
	_, err := load(t, "", []string{
		"HOME=/root", "SLIMCHAT_SERVICE_HOST=10.0.0.1", "SLIMCHAT_SERVICE_PORT=80", "SLIMCHAT_SERVICE_PORT_MQTT=1883", "SLIMCHAT_PORT=tcp://10.0.0.1:80",
		"SLIMCHAT_PORT_8080_TCP=tcp://10.0.0.1:8080", "SLIMCHAT_PORT_8080_TCP_ADDR=10.0.0.1", "SLIMCHAT_HEADLESS_SERVICE_HOST=None", "SLIMCHAT_PASSWORD=x",
	})
	require.NoError(t, err)
}

func TestDefaultFileLoadsBackToTheDefaults(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, WriteDefault(&text))
	entries, err := parseFile("default", text.Bytes())
	require.NoError(t, err)
	require.Len(t, entries, len(Keys()), "every key is printed")

	// Loading it over other values gives the defaults again, so that each printed value is read and not just skipped.
	c := &Config{}
	known := keysByName()
	for _, e := range entries {
		require.NoError(t, known[e.key].set(c, e.value), e.key)
	}
	require.Equal(t, Default(), c)

	_, err = load(t, text.String(), nil)
	require.NoError(t, err)
}

func TestEveryKeyIsExplainedAndItsNamesAreItsOwn(t *testing.T) {
	seen := map[string]string{}
	for _, key := range Keys() {
		require.NotEmpty(t, key.Doc, key.Name)
		require.False(t, strings.HasSuffix(key.Name, "."), "a field without a koanf tag: %s", key.Name)
		for _, name := range []string{key.Env(), "--" + key.Flag()} {
			require.Empty(t, seen[name], "%s and %s share the name %s", seen[name], key.Name, name)
			seen[name] = key.Name
		}
		require.False(t, clientVariables[key.Env()], "%s is taken by the client verbs", key.Env())
		require.False(t, serviceLinks.MatchString(key.Env()), "%s would be taken for a service link", key.Env())
	}
	require.Contains(t, seen, "SLIMCHAT_MQTT_LISTEN")
	require.Contains(t, seen, "--mqtt-listen")
}

func TestDocumentedSettingsAreTheSettings(t *testing.T) {
	page, err := os.ReadFile("../../../docs/configuration.md")
	require.NoError(t, err)
	var table bytes.Buffer
	require.NoError(t, WriteMarkdown(&table))
	require.Contains(t, string(page), table.String(), "docs/configuration.md is behind: paste what `slimchat config docs` prints")
}
