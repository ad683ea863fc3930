-- Accounts: users, their clients, nodes, signing keys, and the feed of changes.
-- Times are Unix milliseconds, 0 for never.

CREATE TABLE users (
    uid      {{.Text}} NOT NULL,
    nick     {{.Text}} NOT NULL,
    avatar   {{.Text}} NOT NULL,
    password {{.Text}} NOT NULL,
    role     {{.Text}} NOT NULL,
    state    {{.Text}} NOT NULL,
    created  BIGINT NOT NULL,
    updated  BIGINT NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (uid)
);

CREATE TABLE nodes (
    id      {{.Text}} NOT NULL,
    nick    {{.Text}} NOT NULL,
    secret  {{.Bytes}} NOT NULL,
    created BIGINT NOT NULL,
    CONSTRAINT nodes_pkey PRIMARY KEY (id)
);

-- A client belongs to a user or to a node.
CREATE TABLE clients (
    id            {{.AutoID}},
    uid           {{.Text}},
    node          {{.Text}},
    clientid      {{.Text}} NOT NULL,
    type          {{.Text}} NOT NULL,
    appid         {{.Text}} NOT NULL,
    deviceid      {{.Text}} NOT NULL,
    ticket        {{.Text}} NOT NULL,
    token_expires BIGINT NOT NULL,
    last_seen     BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    CONSTRAINT clients_owner CHECK ((uid IS NULL) <> (node IS NULL)),
    CONSTRAINT clients_uid_key UNIQUE (uid, clientid),
    CONSTRAINT clients_node_key UNIQUE (node, clientid),
    CONSTRAINT clients_uid_fkey FOREIGN KEY (uid) REFERENCES users (uid) ON DELETE CASCADE,
    CONSTRAINT clients_node_fkey FOREIGN KEY (node) REFERENCES nodes (id) ON DELETE CASCADE
);

CREATE TABLE signing_keys (
    kid       {{.Text}} NOT NULL,
    seed      {{.Bytes}} NOT NULL,
    created   BIGINT NOT NULL,
    activated BIGINT NOT NULL,
    retired   BIGINT NOT NULL,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
);

-- Read by every process in the order of id, which never comes back.
CREATE TABLE changes (
    id      {{.AutoID}},
    at      BIGINT NOT NULL,
    kind    {{.Text}} NOT NULL,
    owner   {{.Text}} NOT NULL,
    client  {{.Text}} NOT NULL,
    ticket  {{.Text}} NOT NULL,
    expires BIGINT NOT NULL
);

-- Unexpired revocations are loaded at start; what has expired is dropped.
CREATE INDEX changes_expires ON changes (expires, id);
