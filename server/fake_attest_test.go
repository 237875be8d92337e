package server_test

import (
	"context"

	"github.com/stellarun/stella/server/api"
)

func (f *fake) AttestRun(_ context.Context, id string, req api.AttestRequest) (api.Attestation, error) {
	if _, err := f.find(id); err != nil {
		return api.Attestation{}, err
	}
	const file = "{\"mediaType\":\"<&>\u2028\"}" // a careless encoder would change it
	out := api.Attestation{RunID: id, SHA256: sumOf(file), Bundle: []byte(file), New: true, Subjects: []api.AttestedSubject{}}
	for _, name := range req.Artifacts {
		out.Subjects = append(out.Subjects, api.AttestedSubject{Name: name, SHA256: sumOf("hello")})
	}
	return out, nil
}
