//go:build tools

// Package exporter only holds the import that keeps the command in go.mod.
package exporter

import _ "github.com/prometheus/node_exporter"
