use super::*;
use tokio::net::TcpListener;

/// A connection to a server that sends these pieces, one after the other, for each request, and then closes.
async fn served(pieces: &'static [&'static [u8]], requests: usize) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..requests {
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.unwrap();
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    Connection::open(&address.to_string()).await.unwrap()
}

#[tokio::test]
async fn an_answer_in_pieces_is_read_to_its_end_and_the_connection_used_again() {
    let mut connection = served(&[b"HTTP/1.1 200 OK\r\nconte", b"nt-length: 5\r\n\r\nhe", b"llo"], 3).await;
    for _ in 0..3 {
        let answer = connection.exchange(b"ping").await.unwrap();
        assert_eq!((answer.status, answer.keep_alive, answer.body.len()), (200, true, 0));
    }
    assert!(matches!(connection.exchange(b"ping").await, Err(Broken::Closed | Broken::Io(_))));
    assert!(!connection.is_open());
}

#[tokio::test]
async fn errors_keep_their_body_and_refusals_say_when_to_come_again() {
    static REFUSAL: [&[u8]; 1] =
        [b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\ncontent-length: 14\r\n\r\n{\"type\":\"/d#x\""];
    let answer = served(&REFUSAL, 1).await.exchange(b"ping").await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (429, Some(Duration::from_secs(2))));
    assert_eq!(answer.body, b"{\"type\":\"/d#x\"");
}

#[tokio::test]
async fn chunks_interim_answers_and_bodies_that_end_with_the_connection_are_read() {
    let chunked: &[&[u8]] = &[
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n3\r\n",
        b"abc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n",
        b"trailer: x\r\n\r\n",
    ];
    let mut connection = served(chunked, 2).await;
    for _ in 0..2 {
        let answer = connection.exchange(b"ping").await.unwrap();
        assert_eq!((answer.status, answer.keep_alive), (500, true));
        assert_eq!(answer.body, b"abc0123456789abcdef");
    }
    let answer =
        served(&[b"HTTP/1.1 404 No\r\n\r\nnothing", b" here"], 1).await.exchange(b"ping").await.unwrap();
    assert_eq!((answer.keep_alive, &*answer.body), (false, &b"nothing here"[..]));
    static CLOSING: [&[u8]; 1] = [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"];
    assert!(!served(&CLOSING, 1).await.exchange(b"ping").await.unwrap().keep_alive);
}

#[tokio::test]
async fn what_is_not_http_or_claims_too_much_is_refused() {
    for wrong in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n",
    ] {
        let pieces: &'static [&'static [u8]] = Box::leak(Box::new([wrong]));
        let answer = served(pieces, 1).await.exchange(b"ping").await;
        assert!(matches!(answer, Err(Broken::NotHttp)), "{answer:?}");
    }
    static ENDLESS: [&[u8]; 1] = [&[b'x'; 2 * MOST_HEAD]];
    assert!(served(&ENDLESS, 1).await.exchange(b"ping").await.is_err());
}
