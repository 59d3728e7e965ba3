//! What the objects of every kind have in common, so that all are watched alike.

use serde::de::DeserializeOwned;

use super::{Meta, Node, Pod, Service, Slice};
use whereis_port_model::{KubeEndpoints, KubeNode, KubePod, KubeService, ObjectName};

/// An object that is listed and watched.
pub(in super::super) trait Object: DeserializeOwned + Send {
    /// What is kept of it.
    type Model: PartialEq + Send;

    /// Its namespace, which nodes have none of, and its name.
    fn name(&self) -> ObjectName;

    /// Its version, opaque.
    fn version(&self) -> &str;

    /// What is kept of it; `None` for what nobody asks for.
    fn model(self) -> Option<Self::Model>;
}

/// Of a kind whose metadata is all that differs.
macro_rules! object {
    ($kind:ty, $model:ty, $make:expr) => {
        impl Object for $kind {
            type Model = $model;

            fn name(&self) -> ObjectName {
                self.metadata.name()
            }

            fn version(&self) -> &str {
                &self.metadata.resource_version
            }

            fn model(self) -> Option<$model> {
                $make(self)
            }
        }
    };
}

object!(Service, KubeService, |object: Self| Some(object.into_model()));
object!(Pod, KubePod, |object: Self| Some(object.into_model()));
object!(Node, KubeNode, |object: Self| Some(object.into_model()));
object!(Slice, KubeEndpoints, |object: Self| {
    let service = service_of(&object.metadata)?;
    Some(object.into_model(&service))
});

/// The Service that a slice is of.
fn service_of(slice: &Meta) -> Option<ObjectName> {
    let name = slice.labels.get("kubernetes.io/service-name")?;
    Some(ObjectName { namespace: slice.namespace.clone(), name: name.clone() })
}
