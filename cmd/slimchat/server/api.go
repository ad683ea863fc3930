package server

import (
	"context"
	"net/http"
)

func (s *server) newAPI(context.Context) (http.Handler, error) { return http.NotFoundHandler(), nil }
