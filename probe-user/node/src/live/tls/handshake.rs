//! TLS as far as a server's certificate.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, PeerIncompatible};
use rustls::{SignatureScheme, crypto};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

/// What one handshake may take, connecting included.
const TIME: Duration = Duration::from_secs(1);

/// What is connected to: a socket in the right namespace and the address, or why there is
/// none.
pub(super) type PeerStream = Result<(TcpStream, SocketAddr), String>;

/// The certificates that all of these show, in their order, as DER; or why they don't.
pub(super) fn all(begun: Vec<PeerStream>) -> Vec<Result<Vec<u8>, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return begun.iter().map(|_| Err(error.to_string())).collect(),
    };
    runtime.block_on(join_all(begun.into_iter().map(|begun| async {
        let (socket, address) = begun?;
        one(socket, address).await
    })))
}

async fn one(socket: TcpStream, address: SocketAddr) -> Result<Vec<u8>, String> {
    let seen = Arc::new(CertificateCapture::new());
    let time = tokio::time::timeout(TIME, shake(socket, address, Arc::clone(&seen)));
    let done = time.await;
    // A server that wants a certificate of ours breaks off after it has shown its own.
    if let Some(certificate) = seen.take() {
        return Ok(certificate);
    }
    match done {
        Err(_) => Err(format!("no certificate within {} s: it is silent", TIME.as_secs())),
        Ok(Err(error)) => Err(why(&error)),
        Ok(Ok(())) => Err("it showed no certificate".to_owned()),
    }
}

async fn shake(
    socket: TcpStream,
    address: SocketAddr,
    seen: Arc<CertificateCapture>,
) -> io::Result<()> {
    let provider = Arc::clone(&seen.provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(seen)
        .with_no_client_auth();
    let stream = TcpSocket::from_std_stream(socket).connect(address).await?;
    // By an address no name is asked for: the server shows what it shows to anybody.
    let name = ServerName::IpAddress(address.ip().into());
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // Ended as it should be, so that the server has nothing to complain about.
    let _ = tls.shutdown().await;
    Ok(())
}

/// Why there was no certificate, in words.
fn why(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => "what it sends is not TLS".to_owned(),
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ))
        | Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => {
            "it speaks TLS older than 1.2, which is not asked for".to_owned()
        }
        Some(error) => format!("no TLS with it: {error}"),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                "it closed the connection: most likely it does not speak TLS".to_owned()
            }
            _ => format!("it can't be connected to: {error}"),
        },
    }
}

/// Keeps the certificate that a server shows, and takes any.
#[derive(Debug)]
struct CertificateCapture {
    provider: Arc<CryptoProvider>,
    certificate: Mutex<Option<Vec<u8>>>,
}

impl CertificateCapture {
    fn new() -> Self {
        Self { provider: Arc::new(crypto::ring::default_provider()), certificate: Mutex::default() }
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for CertificateCapture {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut kept = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
