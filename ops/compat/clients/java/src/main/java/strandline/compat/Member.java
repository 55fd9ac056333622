package strandline.compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** A member of a group in a thread of its own, which commits what it has read before it gives partitions up. */
final class Member extends Thread implements ConsumerRebalanceListener {
    private final KafkaConsumer<String, String> consumer;
    private final BufferedWriter file;
    private final int limit;
    private final Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
    private volatile Set<TopicPartition> assigned = Set.of();
    private volatile int read;
    private volatile boolean leaving;
    private volatile String failed;

    Member(String bootstrap, String topic, JsonNode request) throws Exception {
        Properties settings = Main.properties("bootstrap.servers", bootstrap, "group.id", request.get("group").asText(),
            "auto.offset.reset", "earliest", "enable.auto.commit", "false", "max.poll.records", "5000");
        switch (request.get("protocol").asText()) {
            case "consumer" -> settings.put("group.protocol", "consumer");
            case "cooperative" -> classic(settings, CooperativeStickyAssignor.class);
            default -> classic(settings, RangeAssignor.class);
        }
        limit = request.path("limit").asInt(Integer.MAX_VALUE);
        file = Files.newBufferedWriter(Path.of(request.get("file").asText()));
        consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(topic), this);
        setDaemon(true);
    }

    private static void classic(Properties settings, Class<?> assignor) {
        settings.put("partition.assignment.strategy", assignor.getName());
        settings.put("session.timeout.ms", "10000");
    }

    @Override
    public void run() {
        try (consumer; file) {
            while (!leaving) {
                for (ConsumerRecord<String, String> row : consumer.poll(Duration.ofMillis(100))) {
                    if (read < limit) {
                        file.write(row.partition() + " " + row.offset() + " " + row.key() + " " + row.value() + "\n");
                        next.put(new TopicPartition(row.topic(), row.partition()), new OffsetAndMetadata(row.offset() + 1));
                        read = read + 1;
                    }
                }
                file.flush();
                assigned = consumer.assignment();
            }
            onPartitionsRevoked(List.copyOf(next.keySet()));
        } catch (Exception error) {
            error.printStackTrace();
            failed = error.toString();
        }
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
        for (TopicPartition partition : partitions) {
            OffsetAndMetadata offset = next.remove(partition);
            if (offset != null) {
                done.put(partition, offset);
            }
        }
        if (!done.isEmpty()) {
            consumer.commitSync(done);
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        partitions.forEach(next::remove);
    }

    void state(ObjectNode answer) {
        var places = answer.putArray("assigned");
        assigned.forEach(place -> places.add(place.partition()));
        answer.put("read", read).put("failed", failed);
    }

    void leave(ObjectNode answer) throws InterruptedException {
        leaving = true;
        join(60_000);
        if (failed != null || isAlive()) {
            throw new IllegalStateException(failed == null ? "the member does not end" : failed);
        }
        answer.put("read", read);
    }
}
