package main

import (
	extproc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
)

// inOrder mends two faults of lwepp v1.6.0, of which each makes Envoy refuse
// every request with a body where bodies are streamed both ways
// (FULL_DUPLEX_STREAMED), as the Endpoint Picker Protocol wants it. It answers
// chunks of the request before its headers, and a chunk without saying what is
// to be sent on in its place. Upstream both are mended after v1.6.0
// (gateway-api-inference-extension #3028 and #3033). What it picks is lwepp's
// own.
type inOrder struct {
	extproc.ExternalProcessorServer
}

func (p *inOrder) Process(stream extproc.ExternalProcessor_ProcessServer) error {
	return p.ExternalProcessorServer.Process(&exchange{ExternalProcessor_ProcessServer: stream})
}

// exchange is one request and its answer, as Envoy tells of them.
type exchange struct {
	extproc.ExternalProcessor_ProcessServer
	begun  bool                // the headers of the request are answered
	chunks []*extproc.HttpBody // of the request, and not answered yet
	early  int                 // so many were answered before the headers
	latest *extproc.HttpBody   // of the answer
}

func (e *exchange) Recv() (*extproc.ProcessingRequest, error) {
	told, err := e.ExternalProcessor_ProcessServer.Recv()
	switch told := told.GetRequest().(type) {
	case *extproc.ProcessingRequest_RequestBody:
		e.chunks = append(e.chunks, told.RequestBody)
	case *extproc.ProcessingRequest_ResponseBody:
		e.latest = told.ResponseBody
	}
	return told, err
}

func (e *exchange) Send(answer *extproc.ProcessingResponse) error {
	switch given := answer.GetResponse().(type) {
	case *extproc.ProcessingResponse_RequestHeaders:
		if err := e.ExternalProcessor_ProcessServer.Send(answer); err != nil {
			return err
		}
		e.begun = true
		for ; e.early > 0; e.early-- {
			if err := e.passOn(); err != nil {
				return err
			}
		}
		return nil
	case *extproc.ProcessingResponse_RequestBody:
		if !e.begun {
			e.early++
			return nil
		}
		return e.passOn()
	case *extproc.ProcessingResponse_ResponseBody:
		given.ResponseBody = unchanged(e.latest)
	}
	return e.ExternalProcessor_ProcessServer.Send(answer)
}

// passOn answers the oldest chunk of the request.
func (e *exchange) passOn() error {
	chunk := e.chunks[0]
	e.chunks = e.chunks[1:]
	body := &extproc.ProcessingResponse_RequestBody{RequestBody: unchanged(chunk)}
	return e.ExternalProcessor_ProcessServer.Send(&extproc.ProcessingResponse{Response: body})
}

func unchanged(chunk *extproc.HttpBody) *extproc.BodyResponse {
	same := &extproc.StreamedBodyResponse{Body: chunk.GetBody(), EndOfStream: chunk.GetEndOfStream()}
	mutation := &extproc.BodyMutation{Mutation: &extproc.BodyMutation_StreamedResponse{StreamedResponse: same}}
	return &extproc.BodyResponse{Response: &extproc.CommonResponse{BodyMutation: mutation}}
}
