// Package simtest holds tests of a whole site under load: one that is killed again
// and again, one that many clients use at once, and one whose system calls fail.
// What they find afterwards is held against what the clients were told and what the
// programs did. It has no code of its own.
package simtest
