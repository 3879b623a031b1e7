package main

import (
	"bytes"
	"os"
	"testing"
)

func TestCoverageIsCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := write(&want, "../.."); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/coverage.md is not what the code says: run make docs")
	}
}
