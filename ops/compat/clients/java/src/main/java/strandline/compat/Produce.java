package strandline.compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Produces numbered records, at a rate if there is one, and sees how long the slowest acknowledgement took. */
final class Produce {
    private long longest;
    private int failed;
    private String why;

    static void run(String bootstrap, String topic, JsonNode request, ObjectNode answer) throws Exception {
        new Produce().all(bootstrap, topic, request, answer);
    }

    private void all(String bootstrap, String topic, JsonNode request, ObjectNode answer) throws Exception {
        Properties settings = Main.properties("bootstrap.servers", bootstrap, "acks", "all", "linger.ms", "5",
            "compression.type", request.get("codec").asText());
        if (request.get("idempotent").isBoolean()) {
            settings.put("enable.idempotence", request.get("idempotent").asText());
            if (!request.get("idempotent").asBoolean()) {
                settings.put("max.in.flight.requests.per.connection", "1");
            }
        }
        int count = request.get("count").asInt();
        double rate = request.path("rate").asDouble(0);
        String tag = request.get("tag").asText();
        long began = System.nanoTime();
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < count; number++) {
                if (rate > 0) {
                    long due = began + (long) (number / rate * 1e9) - System.nanoTime();
                    if (due > 1_000_000) {
                        Thread.sleep(due / 1_000_000);
                    }
                }
                long sent = System.nanoTime();
                producer.send(new ProducerRecord<>(topic, "k" + number % 1000, tag + "-" + number),
                    (metadata, error) -> acknowledged(sent, error));
            }
            producer.flush();
        }
        answer.put("failed", failed).put("why", why).put("stall_ms", longest / 1_000_000);
    }

    private synchronized void acknowledged(long sent, Exception error) {
        longest = Math.max(longest, System.nanoTime() - sent);
        if (error != null) {
            failed++;
            why = error.toString();
        }
    }
}
