package httpapi

import (
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/slimchat/slimchat/httpapi/account"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/models"
)

// profile is what everybody sees of a user.
type profile struct {
	UID    string `json:"uid"`
	Nick   string `json:"nick"`
	Avatar string `json:"avatar"`
}

// ownProfile is what a user sees of itself.
type ownProfile struct {
	profile
	Role      string    `json:"role"`
	CreatedAt timestamp `json:"created_at"`
}

// timestamp is written as RFC 3339 in UTC.
type timestamp int64 // Unix milliseconds

// MarshalJSON implements json.Marshaler.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return time.UnixMilli(int64(t)).UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}

func showUser(u models.User) ownProfile {
	return ownProfile{profile{u.UID, u.Nick, u.Avatar}, u.Role, timestamp(u.Created)}
}

func (a *API) register(c echo.Context) error {
	var in struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Nick     string `json:"nick"`
	}
	if err := decode(c, &in); err != nil {
		return err
	}
	u, err := a.Accounts.Register(c.Request().Context(), a.Remote(c.Request()),
		account.NewUser{Name: in.Username, Password: in.Password, Nick: in.Nick})
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, "/users/"+url.PathEscape(u.UID))
	return c.JSON(http.StatusCreated, showUser(u))
}

// shownSession is the answer to a login.
type shownSession struct {
	Token     string      `json:"token"`
	ExpiresAt timestamp   `json:"expires_at"`
	Ticket    string      `json:"ticket"`
	User      *ownProfile `json:"user,omitempty"`
	Node      *shownNode  `json:"node,omitempty"`
	Client    shownClient `json:"client"`
	Domain    string      `json:"domain"`
	MQTT      Endpoints   `json:"mqtt"`
}

type shownNode struct {
	ID   string `json:"id"`
	Nick string `json:"nick"`
}

func (a *API) login(c echo.Context) error {
	var in struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Client   struct {
			Type     string `json:"type"`
			AppID    string `json:"appid"`
			DeviceID string `json:"deviceid"`
			ClientID string `json:"clientid"`
		} `json:"client"`
	}
	if err := decode(c, &in); err != nil {
		return err
	}
	s, err := a.Accounts.Login(c.Request().Context(), a.Remote(c.Request()), in.Username, in.Password,
		account.Device{Type: in.Client.Type, AppID: in.Client.AppID, DeviceID: in.Client.DeviceID, ClientID: in.Client.ClientID})
	if err != nil {
		return err
	}
	out := shownSession{
		Token: s.Token, ExpiresAt: timestamp(s.Expires.UnixMilli()), Ticket: s.Ticket,
		Client: a.showClient(s.Owner, s.Client), Domain: a.Domain, MQTT: a.Endpoints(c.Request()),
	}
	if s.Owner.Kind == im.KindNode {
		out.Node = &shownNode{s.Node.ID, s.Node.Nick}
	} else {
		u := showUser(s.User)
		out.User = &u
	}
	return c.JSON(http.StatusOK, out)
}

func (a *API) logout(c echo.Context) error {
	if err := a.Accounts.Logout(c.Request().Context(), caller(c).Principal()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func (a *API) refresh(c echo.Context) error {
	claims := caller(c)
	raw, expires, err := a.Accounts.Refresh(c.Request().Context(), claims)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Token     string    `json:"token"`
		ExpiresAt timestamp `json:"expires_at"`
		Ticket    string    `json:"ticket"`
	}{raw, timestamp(expires.UnixMilli()), claims.Ticket})
}

func (a *API) user(c echo.Context) error {
	uid, err := pathParam(c, "uid")
	if err != nil {
		return err
	}
	u, err := a.Accounts.User(c.Request().Context(), uid)
	if err != nil {
		return err
	}
	if caller(c).Subject == im.User(uid) {
		return tagged(c, showUser(u))
	}
	return tagged(c, showUser(u).profile)
}

// callingUser is the uid of the caller, who must be a user.
func callingUser(c echo.Context) (string, error) {
	if s := caller(c).Subject; s.Kind == im.KindUser {
		return s.ID, nil
	}
	return "", im.Errorf(im.CodeForbidden, "", "only users have an account")
}

func (a *API) updateMe(c echo.Context) error {
	uid, err := callingUser(c)
	if err != nil {
		return err
	}
	var in struct {
		Nick   *string `json:"nick"`
		Avatar *string `json:"avatar"`
	}
	if err := decode(c, &in); err != nil {
		return err
	}
	u, err := a.Accounts.UpdateProfile(c.Request().Context(), uid, account.Profile{Nick: in.Nick, Avatar: in.Avatar})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showUser(u))
}

func (a *API) deleteMe(c echo.Context) error {
	uid, err := callingUser(c)
	if err != nil {
		return err
	}
	if err := a.Accounts.DeleteUser(c.Request().Context(), uid); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func (a *API) changePassword(c echo.Context) error {
	var in struct {
		Old string `json:"old"`
		New string `json:"new"`
	}
	if err := decode(c, &in); err != nil {
		return err
	}
	err := a.Accounts.ChangePassword(c.Request().Context(), a.Remote(c.Request()), caller(c).Principal(), in.Old, in.New)
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
