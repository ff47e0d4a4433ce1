package node

import (
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// An image is a recipe for a container's root: files of this machine, put over
// a base every image shares (see shim.go), and the usual image configuration.
type image struct {
	Match      string            `json:"match"`      // an image name, or a prefix ending in *
	Files      map[string]string `json:"files"`      // path in the container: file or directory here
	Entrypoint []string          `json:"entrypoint"` // replaced by a container's command
	Cmd        []string          `json:"cmd"`        // replaced by a container's args
	Env        map[string]string `json:"env"`
	User       int64             `json:"user"`
	WorkingDir string            `json:"workingDir"`
}

type imageTable []image

// loadImages reads a file of the form {images: [...]}. The names of files may
// have environment variables in them (${TARGET}).
func loadImages(path string) (imageTable, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Images imageTable `json:"images"`
	}
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, image := range file.Images {
		for target, source := range image.Files {
			image.Files[target] = os.ExpandEnv(source)
		}
	}
	return file.Images, nil
}

// find returns the first match; the order of the file decides.
func (t imageTable) find(name string) (image, bool) {
	for _, image := range t {
		prefix, isPrefix := strings.CutSuffix(image.Match, "*")
		if name == image.Match || isPrefix && strings.HasPrefix(name, prefix) {
			return image, true
		}
	}
	return image{}, false
}
