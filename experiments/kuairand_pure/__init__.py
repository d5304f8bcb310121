"""The public protocol of KuaiRand-Pure: long view ranked within each user, a factorization machine to beat."""
