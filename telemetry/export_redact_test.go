package telemetry

// Forms are what a redactor of these secrets looks for.
func Forms(secrets []Secret) [][]byte {
	var all [][]byte
	for _, s := range secrets {
		all = append(all, forms(s.Value)...)
	}
	return all
}
