// Package externalsecrets has the definitions of External Secrets' kinds, of the version in go.mod. They are no Go, so this
// import stands for them.
package externalsecrets

import _ "github.com/external-secrets/external-secrets/cmd/esoctl/generator"
