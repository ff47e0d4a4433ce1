// Package istio has the definitions of Istio's kinds, of the version in go.mod. They are no Go, so this import stands for them.
package istio

import _ "istio.io/api/label"
