package e2e

import (
	"encoding/json"
	"fmt"
)

// message is a message as delivered (wire.md section 3), with its position where the protocol tells it.
type message struct {
	ID      string
	From    string
	Client  string
	To      string
	Type    string
	Thread  string
	Content struct {
		Type string
		Data json.RawMessage
	}
	TS  int64
	Seq uint64 // of REST
}

// chat is a client's message with no more than it must have.
func chat(id string) string {
	return fmt.Sprintf(`{"id":%q,"type":"chat","content":{"type":"text","data":%q}}`, id, "text of "+id)
}

// ids are the messages' ids.
func ids(messages []message) []string {
	list := make([]string, len(messages))
	for i := range messages {
		list[i] = messages[i].ID
	}
	return list
}
