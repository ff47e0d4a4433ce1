// Reads forms by Go's mime/multipart, as net/http does for its servers. In and out as parse.py has it.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"os"
)

type form struct {
	Type string `json:"type"`
	Body string `json:"body"`
}

type reading struct {
	Models []string `json:"models"`
	Error  *string  `json:"error"`
}

// More than any form of the test has.
const memory = 1 << 20

func read(form form) reading {
	models := []string{}
	fail := func(err error) reading {
		text := err.Error()
		return reading{models, &text}
	}
	body, err := hex.DecodeString(form.Body)
	if err != nil {
		return fail(err)
	}
	_, parameters, err := mime.ParseMediaType(form.Type)
	if err != nil {
		return fail(err)
	}
	read, err := multipart.NewReader(bytes.NewReader(body), parameters["boundary"]).ReadForm(memory)
	if err != nil {
		return fail(err)
	}
	for _, value := range read.Value["model"] {
		models = append(models, hex.EncodeToString([]byte(value)))
	}
	for range read.File["model"] {
		models = append(models, "file")
	}
	return reading{models, nil}
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var next form
		if err := in.Decode(&next); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		if err := out.Encode(read(next)); err != nil {
			panic(err)
		}
	}
}
