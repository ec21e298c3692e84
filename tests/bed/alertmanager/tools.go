//go:build tools

// Package alertmanager only holds the imports that keep the commands in go.mod.
package alertmanager

import (
	_ "github.com/prometheus/alertmanager/cmd/alertmanager"
	_ "github.com/prometheus/alertmanager/cmd/amtool"
)
