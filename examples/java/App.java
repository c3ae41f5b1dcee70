// A web service and its worker over pg_enough: `java -cp postgresql.jar App.java web`, and with `worker`.
//
// GET /squares/12, with the header X-User, checks the user's limit, looks in the cache, does the work, fills the cache
// and queues what follows; the worker does that. JDBC_URL may lead through pgbouncer in transaction mode (before 1.21
// with prepareThreshold=0), POLL_URL to the pool that is for waiting readers. Before it, run ../setup.sql.
import com.sun.net.httpserver.*;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.sql.*;
import java.util.concurrent.*;

public class App {
    static final double LEASE = Double.parseDouble(System.getenv().getOrDefault("LEASE_SECONDS", "30"));
    static volatile boolean stopping = false;

    /** The first row's columns, as the driver gives them; null where there is no row. */
    static Object[] row(Connection db, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) statement.setObject(i + 1, parameters[i]);
            ResultSet rs = statement.executeQuery();
            if (!rs.next()) return null;
            Object[] columns = new Object[rs.getMetaData().getColumnCount()];
            for (int i = 0; i < columns.length; i++) columns[i] = rs.getObject(i + 1);
            return columns;
        }
    }

    /** The same on a connection of its own. A real service has a pool here, HikariCP for example. */
    static Object[] once(String sql, Object... parameters) {
        try (Connection db = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            return row(db, sql, parameters);
        } catch (SQLException e) {
            throw new RuntimeException(e);
        }
    }

    /** Middleware: so many requests of one user in so many seconds. */
    static HttpHandler limit(int maxRequests, double seconds, HttpHandler next) {
        return exchange -> {
            Object[] check = once("SELECT allowed, ceil(extract(epoch FROM retry_after))::text"
                + " FROM enough.rate_limit(?, ?, make_interval(secs => ?))",
                "user:" + exchange.getRequestHeaders().getFirst("X-User"), maxRequests, seconds);
            if (!(boolean) check[0]) exchange.getResponseHeaders().set("Retry-After", (String) check[1]);
            if ((boolean) check[0]) next.handle(exchange); else exchange.sendResponseHeaders(429, -1);
            exchange.close();
        };
    }

    static void squares(HttpExchange exchange) throws IOException {
        long n = Long.parseLong(exchange.getRequestURI().getPath().substring("/squares/".length()));
        Object found = once("SELECT enough.cache_get(?)::text", "square:" + n)[0];
        String answer = found != null ? (String) found : "{\"square\": " + n * n + "}";
        if (found == null) {
            // One statement, one transaction: both or neither.
            once("SELECT enough.cache_set(?, ?::jsonb, ttl => '1 hour'), enough.queue_send('squares', ?::jsonb)",
                "square:" + n, answer, "{\"n\": " + n + "}");
        }
        byte[] body = answer.replace("}", ", \"cached\": " + (found != null) + "}").getBytes();
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
    }

    static void work(Connection db, Object message, Object attempts) throws Exception {
        String parse = "SELECT (m->>'n')::int, coalesce((m->>'seconds')::float8, 0) FROM to_jsonb(?::jsonb) AS m";
        Object[] job = row(db, parse, message);
        int n = (int) job[0];
        if (n < 0) throw new IllegalArgumentException("n is negative");
        Thread.sleep((long) (1000 * (double) job[1]));
        row(db, "INSERT INTO squares VALUES (?, ?, ?) RETURNING n", n, (long) n * n, attempts);
    }

    static void worker() throws Exception {
        ScheduledExecutorService timer = Executors.newScheduledThreadPool(1, run -> {
            Thread thread = new Thread(run);
            thread.setDaemon(true);
            return thread;
        });
        String extend = "SELECT enough.queue_extend('squares', ?, make_interval(secs => ?), ?)";
        // A connection that isn't the service's, and short waits: after each, the worker sees that it is to stop.
        Connection poll = DriverManager.getConnection(System.getenv("POLL_URL"));
        while (!stopping) {
            Object[] job = row(poll, "SELECT msg_id, lease, attempts, message::text FROM enough.queue_read('squares',"
                + " visibility_timeout => make_interval(secs => ?), wait => '2 seconds')", LEASE);
            if (job == null) continue;
            // The heartbeat extends the lease from another connection while the work is done.
            Future<?> heartbeat = timer.scheduleAtFixedRate(() -> once(extend, job[0], LEASE, job[1]),
                (long) (1000 * LEASE / 3), (long) (1000 * LEASE / 3), TimeUnit.MILLISECONDS);
            try (Connection db = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
                db.setAutoCommit(false);
                work(db, job[3], job[2]);
                Object[] done = row(db, "SELECT enough.queue_delete('squares', ?, ?)", job[0], job[1]);
                if ((boolean) done[0]) db.commit(); else db.rollback(); // Lost the lease: somebody else does the work.
            } catch (Exception e) {
                once("SELECT enough.queue_fail('squares', ?, ?, lease => ?)", job[0], e.getMessage(), job[1]);
            } finally {
                heartbeat.cancel(false);
            }
        }
    }

    static void web() throws Exception {
        InetSocketAddress address = new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT")));
        HttpServer server = HttpServer.create(address, 0);
        server.createContext("/squares/", limit(5, 60, App::squares));
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
        while (!stopping) Thread.sleep(100);
        server.stop(1);
    }

    public static void main(String[] args) throws Exception {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { // SIGTERM: what is being done is finished first.
            stopping = true;
            try { main.join(); } catch (InterruptedException e) { return; }
        }));
        if (args[0].equals("worker")) worker(); else web();
    }
}
