// Package inference compiles the conformance suite of the Gateway API Inference
// Extension into a test binary, as the folder conformance does with the Gateway
// API's own. The endpoint picker of the suite's Pods is in the folder picker.
package inference

import (
	"testing"

	"sigs.k8s.io/gateway-api-inference-extension/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
