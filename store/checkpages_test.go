package store_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// The pages of the file are checked while others write: what a commit frees just
// then is no damage.
func TestCheckWhileSomebodyWrites(t *testing.T) {
	db := create(t, newHome(t))
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if _, err := db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: fmt.Sprint(i)}); err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 40 {
		if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
