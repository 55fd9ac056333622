// franz-go against a running cluster: `go run . BOOTSTRAP`. Ends with 1 if a step failed.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func check(what string, err error) {
	if err != nil {
		fmt.Println("FAIL ", what, err)
		os.Exit(1)
	}
	fmt.Println("ok   ", what)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	topic := fmt.Sprintf("compat-franz-%d", time.Now().UnixNano())
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.DefaultProduceTopic(topic))
	check("client", err)
	admin := kadm.NewClient(client)
	_, err = admin.CreateTopic(ctx, 6, 3, nil, topic)
	check("create", err)
	n := 10000
	for i := 0; i < n; i++ {
		client.Produce(ctx, kgo.StringRecord(fmt.Sprint(i)), func(_ *kgo.Record, err error) {
			if err != nil {
				fmt.Println("FAIL  produce", err)
				os.Exit(1)
			}
		})
	}
	check("produce", client.Flush(ctx))
	reader, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.ConsumerGroup("g-"+topic), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	check("consumer", err)
	count := 0
	for count < n {
		fetches := reader.PollFetches(ctx)
		fetched(fetches.Err0())
		count += fetches.NumRecords()
	}
	check(fmt.Sprint("consume ", count), nil)
	check("commit", reader.CommitUncommittedOffsets(ctx))
	lag, err := admin.Lag(ctx, "g-"+topic)
	check("lag", err)
	fmt.Println("lag", lag["g-"+topic].Lag.Total(), lag["g-"+topic].State)
	reader.Close()
	_, err = admin.DescribeTopicConfigs(ctx, topic)
	check("describe configs", err)
	_, err = admin.DescribeAllLogDirs(ctx, nil)
	check("log dirs", err)
	_, err = admin.ListBrokers(ctx)
	check("brokers", err)
	_, err = admin.DeleteTopics(ctx, topic)
	check("delete", err)
}

func fetched(err error) {
	if err != nil {
		fmt.Println("FAIL  fetch", err)
		os.Exit(1)
	}
}
