module a.stella/initproc

go 1.26.0
