package mqttgw

import (
	"crypto/rand"
	"strconv"
	"time"

	"github.com/slimchat/slimchat/im"
)

// errorEvent is the event that tells a sender of a refused publish (wire.md section 4).
// id and to are empty where the publish was too broken to have them.
func errorEvent(node string, sender im.Principal, to im.Address, id string, err *im.Error, now time.Time) []byte {
	b := make([]byte, 0, 320)
	field := func(name, value string) {
		b = append(b, name...)
		b = im.AppendJSONString(b, value)
	}
	field(`{"id":`, rand.Text())
	field(`,"from":`, im.Node(node).String())
	field(`,"to":`, sender.Address.String())
	b = append(b, `,"type":"event","thread":"","content":{"type":"error","data":{`...)
	field(`"id":`, id)
	field(`,"code":`, string(err.Code))
	message := err.Message
	if err.Field != "" {
		message = err.Field + " " + message
	}
	field(`,"message":`, message)
	field(`,"to":`, to.String())
	b = append(b, `}},"ts":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	return append(b, '}')
}
