// Package models keeps the accounts of a domain: users, their clients, nodes, signing keys
// and the feed of changes that every process of the domain follows. It runs on SQLite and
// on Postgres with one schema source and one set of queries.
//
// Every query is a bounded read of an index or a write of a few rows. Times are Unix
// milliseconds. A Store is safe for concurrent use. Errors are ErrNotFound, *ConflictError,
// *FullError, ErrUnavailable, or a programming error; compare with errors.Is and errors.As.
package models
