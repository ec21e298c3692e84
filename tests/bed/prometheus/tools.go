//go:build tools

// Package prometheus only holds the imports that keep the commands in go.mod.
package prometheus

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
